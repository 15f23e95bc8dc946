"""A drill on a fleet that runs on this machine: the blow is a signal to one of its processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.core import R1ServeError
from orchestrator.fleet import drill as drills
from orchestrator.fleet.drill import Drill, Limits, Phase, Seen, Tally
from orchestrator.runtime.drill_client import Asker, End, Outcome, ranks
from orchestrator.runtime.local_fleet import LocalFleet

LIVE = (
    Drill.KILL_RANK,
    Drill.KILL_GANG,
    Drill.KILL_GATEWAY,
    Drill.SLOW_RANK,
    Drill.DRAIN_UNDER_LOAD,
    Drill.OVERLOAD,
)
_LOOK_S = 0.5
_OVERLOAD = 4  # times the streams before
_STOPPED_S, _RUNNING_S = 0.2, 0.1  # of a process that is slowed down
_DRAINED_S = 600.0


@dataclass(frozen=True, slots=True)
class Times:
    """How long each phase lasts, in seconds: a blow that heals lasts `lasts_s`."""

    before_s: float = 15.0
    lasts_s: float = 15.0
    after_s: float = 15.0


@dataclass(slots=True)
class Live:
    """One drill under way."""

    url: str
    fleet: LocalFleet | None  # None: only its API is there
    drill: Drill
    times: Times
    limits: Limits
    keeps: Callable[[End], bool]
    key: str = "any"
    phases: dict[Phase, Tally] = field(default_factory=lambda: {each: Tally() for each in Phase})
    causes: Counter[str] = field(default_factory=Counter)
    ends: list[End] = field(default_factory=list)  # in the order of their ends
    notes: list[tuple[float, str]] = field(default_factory=list)
    struck: str = ""
    struck_at: float = float("inf")
    back_at: float | None = None
    aborted: bool = False
    held: int = 0
    began_at: float = field(default_factory=time.monotonic)
    _last: "deque[bool]" = field(default_factory=deque)
    _askers: list[Asker] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, streams: int) -> Seen:
        """All of it, so many streams at a time; at most as long as the limits say."""
        self._last = deque(maxlen=2 * self.limits.burn_requests)
        before = self._shape()
        self._more(streams)
        try:
            self._wait(self.times.before_s)
            self.phases[Phase.BEFORE].lasts_s = self.times.before_s
            self.struck_at = self._now()
            heal = self._strike(streams)
            try:
                self._await_back(before, streams)
            finally:
                heal()
            if self.back_at is not None and not self.aborted:
                self._wait(self.times.after_s)
                self.phases[Phase.AFTER].lasts_s = self._now() - self.back_at
        finally:
            for asker in self._askers:
                asker.stop()
            for asker in self._askers:
                asker.join(timeout=self.limits.back_s)
        back_s = None if self.back_at is None else self.back_at - self.struck_at
        return Seen(
            self.drill, self.struck, self.phases, back_s, aborted=self.aborted, held=self.held
        )

    def _now(self) -> float:
        return time.monotonic() - self.began_at

    def _shape(self) -> tuple[dict[str, int], int]:
        gateways = len(self.fleet.gateways()) if self.fleet is not None else 0
        return ranks(self.url), gateways

    def _more(self, streams: int) -> None:
        for _ in range(streams):
            asker = Asker(self.url, self.key, self._ended, self._now)
            self._askers.append(asker)
            asker.start()

    def _wait(self, lasts_s: float) -> None:
        until = self._now() + lasts_s
        while self._now() < until and not self.aborted:
            time.sleep(min(_LOOK_S, max(0.0, until - self._now())))

    def _ended(self, end: End) -> None:
        with self._lock:
            self.ends.append(end)
            tally = self.phases[self._phase(end)]
            kept = self.keeps(end)
            match end.outcome:
                case Outcome.FINISHED:
                    tally.kept += kept
                    tally.late += not kept
                case Outcome.SHED:
                    tally.shed += 1
                case Outcome.BROKEN:
                    tally.broken += 1
                case Outcome.FAILED:
                    tally.failed += 1
            if end.outcome is not Outcome.FINISHED:
                self.causes[f"{end.outcome}: {end.cause}"] += 1
            if end.outcome in (Outcome.FINISHED, Outcome.FAILED):
                self._last.append(end.outcome is Outcome.FINISHED and kept)
                if self.struck and drills.burns(self.limits, self._last):
                    self.aborted = True

    def _phase(self, end: End) -> Phase:
        if end.at < self.struck_at:
            return Phase.BEFORE
        after = self.back_at is not None and end.began_at >= self.back_at
        return Phase.AFTER if after else Phase.DURING

    def _await_back(self, before: tuple[dict[str, int], int], streams: int) -> None:
        lasts = self.drill in (Drill.SLOW_RANK, Drill.OVERLOAD)
        least = self.struck_at + (self.times.lasts_s if lasts else 2.0)
        until = self.struck_at + self.limits.back_s
        while self._now() < until and not self.aborted:
            time.sleep(_LOOK_S)
            if self._now() >= least and self._shape() == before:
                self.back_at = self._now()
                break
        self.phases[Phase.DURING].lasts_s = self._now() - self.struck_at
        for asker in self._askers[streams:]:
            asker.stop()

    # --- blows ---------------------------------------------------------------------------------

    def _strike(self, streams: int) -> Callable[[], None]:
        """Does it; what is returned undoes it."""
        if self.drill is Drill.OVERLOAD:
            self._more((_OVERLOAD - 1) * streams)
            self._told(f"{_OVERLOAD * streams} streams at a time instead of {streams}")
            return _nothing
        assert self.fleet is not None
        gang = self.fleet.gang()
        match self.drill:
            case Drill.KILL_RANK:
                _signal(gang.pids[-1:], signal.SIGKILL)
                self._told(f"process {gang.pids[-1]} of {gang.engine_id}")
            case Drill.KILL_GANG:
                _signal(gang.pids, signal.SIGKILL)
                self._told(f"{len(gang.pids)} processes of {gang.engine_id}")
            case Drill.KILL_GATEWAY:
                self.held = len([asker for asker in self._askers if asker.streaming])
                pids = self.fleet.gateways()[:1]
                _signal(pids, signal.SIGKILL)
                self._told(f"gateway process {pids[0]}")
            case Drill.SLOW_RANK:
                self._told(f"{gang.engine_id} stands still two thirds of the time")
                return _slowed(gang.pids)
            case _:
                self._told(f"{gang.engine_id} is drained")
                threading.Thread(target=_drain, args=(gang.engine_id,), daemon=True).start()
        return _nothing

    def _told(self, struck: str) -> None:
        self.struck = struck
        self.notes.append((self._now(), f"struck: {struck}"))


def _nothing() -> None:
    """There is nothing to undo."""


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _slowed(pids: list[int]) -> Callable[[], None]:
    """Stops the processes again and again until what is returned is called."""
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


def _drain(gang: str) -> None:
    """Through the command that an operator would type."""
    command = [sys.executable, "-m", "orchestrator.cli", "drain", gang]
    subprocess.run(command, capture_output=True, timeout=_DRAINED_S, check=False)


def can_drain() -> bool:
    """Whether this r1-serve has a command that drains."""
    command = [sys.executable, "-m", "orchestrator.cli", "drain", "--help"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def check_target(drill: Drill, fleet: LocalFleet | None, url: str) -> None:
    """Raises R1ServeError if there is nothing to strike, or nothing that could take over."""
    if drill not in LIVE:
        raise R1ServeError(
            f"{drill} has no target on a running fleet: no process of it can be told to do that",
            "hold it in virtual time, with --simulate PLAN",
        )
    if drill is Drill.OVERLOAD:
        return
    if fleet is None:
        raise R1ServeError(
            f"{drill} has no target: the processes behind {url} are not on this machine",
            "hold it there",
        )
    if drill is Drill.DRAIN_UNDER_LOAD and not can_drain():
        raise R1ServeError(
            "drain-under-load has no target: this r1-serve has no command that drains",
            "hold it in virtual time, with --simulate PLAN",
        )
    if drill is Drill.KILL_GATEWAY and len(fleet.gateways()) < 2:
        raise R1ServeError(
            "kill-gateway has no target: the only gateway is the whole API",
            "give the spec gateway.replicas: 2, or more",
        )
    fleet.gang()
