"""What a drill does to a fleet: signals to its processes, and words to its gateways."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from orchestrator.core import StartError
from orchestrator.fleet.drill import Disturbance
from orchestrator.runtime.local_fleet import LocalFleet

_STOPPED_S, _RUNNING_S = 0.2, 0.1  # of a process that is slowed down
_DRAINED_S = 600.0
_ANSWER_S = 10.0  # of gateways
_LOOK_S = 0.02  # between two looks for a poisonous request, which is to kill while it is young


def kill(pids: list[int]) -> None:
    """Ends the processes at once; those that have ended meanwhile are no error."""
    _signal(pids, signal.SIGKILL)


def slow(pids: list[int]) -> Callable[[], None]:
    """Stops the processes two thirds of the time, until what is returned is called."""
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            _signal(pids, signal.SIGSTOP)
            over.wait(_STOPPED_S)
            _signal(pids, signal.SIGCONT)
            over.wait(_RUNNING_S)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()

    def heal() -> None:
        over.set()
        thread.join()
        _signal(pids, signal.SIGCONT)

    return heal


def drain(gang: str, address: str, wait_s: float) -> None:
    """Begins to drain it, through the command that an operator would type."""
    command = [sys.executable, "-m", "orchestrator.cli", "drain", gang, "--address", address]
    command += ["--wait", str(wait_s)]

    def run() -> None:
        subprocess.run(command, capture_output=True, timeout=_DRAINED_S, check=False)

    threading.Thread(target=run, daemon=True).start()


def disturb(what: Disturbance, lasts_s: float) -> int:
    """Every gateway does without it for a while; returns how many ranks that concerns. Wants a
    driver in the cluster; raises StartError if a gateway does not answer.
    """
    concerned: list[int] = _Gateways().ask("disturb", what.value, lasts_s)
    return max(concerned, default=0)


class Poison:
    """A request that kills each engine which decodes it: its engines are killed by us, as soon as a
    gateway says where it is. Wants a driver in the cluster.
    """

    def __init__(self, fleet: LocalFleet, session: str) -> None:
        self.killed: list[str] = []  # gangs
        self._fleet = fleet
        self._session = session
        self._over = threading.Event()
        self._gateways = _Gateways()
        # The first question takes as long as an engine takes to draw a young request's tokens.
        self._gateways.ask("ranks_of", session)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """It kills no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                answers: list[list[str]] = self._gateways.ask("ranks_of", self._session)
            except StartError:
                continue  # a gateway that is not there has no request
            ranks = [rank for answer in answers for rank in answer]
            self._kill({rank.rpartition("/")[0] for rank in ranks} - set(self.killed))

    def _kill(self, gangs: set[str]) -> None:
        if not gangs:
            return
        for gang in self._fleet.gangs():
            if gang.engine_id in gangs and gang.decodes:
                kill(gang.pids)
                self.killed.append(gang.engine_id)


class _Gateways:
    """All gateways, through one handle of Serve's: each handle has a router of its own."""

    def __init__(self) -> None:
        from ray import serve  # slow to import, and few drills want it

        from orchestrator.runtime.scaling_policy import GATEWAY
        from orchestrator.runtime.serve_config import APPLICATION

        self._handle = serve.get_deployment_handle(GATEWAY, APPLICATION)

    def ask(self, method: str, *arguments: object) -> list[Any]:
        """What each answers; raises StartError if one does not."""
        from ray.exceptions import RayError

        try:
            answers: list[Any] = self._handle.broadcast(method, *arguments).results(
                timeout_s=_ANSWER_S
            )
        except (RayError, TimeoutError) as error:
            raise StartError(f"a gateway does not answer: {error}", "look at its log") from error
        return answers


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
