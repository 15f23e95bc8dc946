"""Several processes that send one load: Locust workers of this machine, this process their master.

Locust starts no users here: its runners are the connection, and each play goes over it as a
message. Every worker has the whole schedule and sends its share of it, each request at its instant;
the clock of the machine is one for all.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
import msgspec
from gevent.event import Event
from locust import User
from locust.env import Environment

from loadtest.load import LoadSpec, read_load
from loadtest.local import LocalPlayer
from loadtest.play import Play, Played, played_together
from loadtest.target import Target, target_of
from orchestrator.core import StartError

_START_S = 60.0
_AHEAD_S = 0.3  # between a play's message and its begin: so that every worker has it in time
_PLAY, _PLAYED, _STOP, _GIVE_UP, _OPEN = (
    f"r1-{word}" for word in ("play", "played", "stop", "give-up", "open")
)
_TELL_S = 0.2


class Told(msgspec.Struct):
    """What a worker is told of a play."""

    play: Play
    offset_s: float
    begin_at: float  # of the machine's monotonic clock
    share: tuple[int, int]


class WorkerSpec(msgspec.Struct):
    """What a worker is started with, over its standard input: keys are on no command line."""

    load: LoadSpec
    url: str
    key: str
    ca: str | None
    insecure: bool
    addresses: list[str]


class Message(Protocol):
    """Of Locust's, as far as it is used."""

    node_id: str
    data: bytes


class Nobody(User):  # type: ignore[misc]  # Locust has no types
    """Locust wants a class of users; none is started."""

    def wait_time(self) -> float:
        """Never asked."""
        return 1.0


class WorkerPlayers:
    """Implements `Player` with as many workers as are asked for."""

    def __init__(
        self, options: argparse.Namespace, load: LoadSpec, target: Target, workers: int
    ) -> None:
        """Starts them; raises StartError if they do not come."""
        environment = Environment(user_classes=[Nobody])
        self._runner: Any = environment.create_master_runner("127.0.0.1", 0)
        self._began_at = time.monotonic()
        self._played: dict[str, Played] = {}
        self._open: dict[str, int] = {}
        self._ended = Event()
        self._runner.register_message(_PLAYED, self._on_played)
        self._runner.register_message(_OPEN, self._on_open)
        spec = WorkerSpec(
            load,
            target.url,
            target.key,
            None if options.ca is None else str(options.ca),
            options.insecure,
            list(target.addresses),
        )
        port = self._runner.server.port
        self._processes = [_started(port, spec) for _ in range(workers)]
        until = time.monotonic() + _START_S
        while len(self._runner.clients.ready) < workers:
            if any(process.poll() is not None for process in self._processes):
                self.close()
                raise StartError("a worker ended at once", "see what it said above")
            if time.monotonic() > until:
                self.close()
                raise StartError(f"{workers} workers did not come in time", "ask for fewer")
            gevent.sleep(0.05)
        self._workers = sorted(client.id for client in self._runner.clients.ready)

    def now(self) -> float:
        """As `Player` has it."""
        return time.monotonic() - self._began_at

    def wait(self, duration_s: float) -> None:
        """As `Player` has it."""
        gevent.sleep(duration_s)

    def play(self, play: Play) -> Played:
        """As `Player` has it."""
        self._played.clear()
        self._ended.clear()
        begin_at = time.monotonic() + _AHEAD_S
        for number, client_id in enumerate(self._workers):
            told = Told(play, begin_at - self._began_at, begin_at, (number, len(self._workers)))
            self._runner.send_message(_PLAY, msgspec.json.encode(told), client_id)
        while not self._ended.wait(1.0):
            if any(process.poll() is not None for process in self._processes):
                raise StartError("a worker died", "see what it said above")
        return played_together([self._played[client_id] for client_id in self._workers])

    @property
    def open_streams(self) -> int:
        """As `Player` has it, a little while ago."""
        return sum(self._open.values())

    def give_up(self) -> None:
        """As `Player` has it."""
        self._runner.send_message(_GIVE_UP, b"")

    def stop(self) -> None:
        """As `Player` has it."""
        self._runner.send_message(_STOP, b"")

    def close(self) -> None:
        """Ends the workers."""
        self._runner.quit()
        for process in self._processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _on_played(self, environment: object, msg: Message) -> None:
        self._played[msg.node_id] = msgspec.json.decode(msg.data, type=Played)
        if len(self._played) == len(self._workers):
            self._ended.set()

    def _on_open(self, environment: object, msg: Message) -> None:
        self._open[msg.node_id] = int(msg.data)


def _started(port: int, spec: WorkerSpec) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "loadtest", "worker", "--port", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(spec))
    process.stdin.close()
    return process


# --- a worker ------------------------------------------------------------------------------------


def add_worker(parser: argparse.ArgumentParser) -> None:
    """Of a process that a master starts."""
    parser.add_argument("--port", type=int, required=True)
    parser.set_defaults(do=_worker)


def _worker(options: argparse.Namespace, argv: list[str]) -> int:
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)
    load = read_load(spec.load)
    target = target_of(spec.url, spec.key, spec.ca, insecure=spec.insecure)
    target = target.at(tuple(spec.addresses))
    environment = Environment(user_classes=[Nobody])
    player = LocalPlayer(target, load)
    runner: Any = environment.create_worker_runner("127.0.0.1", options.port)

    def on_play(environment: object, msg: Message) -> None:
        told = msgspec.json.decode(msg.data, type=Told)
        player.share = told.share
        played = player.play_from(told.play, told.begin_at, told.offset_s)
        runner.send_message(_PLAYED, msgspec.json.encode(played))

    runner.register_message(_PLAY, on_play, concurrent=True)
    runner.register_message(_STOP, lambda environment, msg: player.stop())
    runner.register_message(_GIVE_UP, lambda environment, msg: player.give_up())
    gevent.spawn(_tell_open, lambda count: runner.send_message(_OPEN, b"%d" % count), player)
    runner.greenlet.join()
    player.close()
    return 0


def _tell_open(tell: Callable[[int], None], player: LocalPlayer) -> None:
    while True:
        gevent.sleep(_TELL_S)
        tell(player.open_streams)
