"""One engine process below a keeper: what it says, and how it ends."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orchestrator.engines import EngineInfo
from orchestrator.engines.command import EngineCommand
from orchestrator.runtime import keeper

STOP_GRACE_S = 5.0  # between asking an engine to end and ending it
EXCEPTION = re.compile(r"\b[\w.]*(?:Error|Exception): .+")  # the last line of a traceback
LAST_LINES = 3
LINE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine process serves: which rank, where its token channel and its metrics are, and how
    long each phase of its start took.
    """

    rank: int
    address: str
    metrics: str | None
    info: EngineInfo
    weights_bytes: int  # of the whole checkpoint; 0: not known
    phases_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a process has ended, and what to do about it, a sentence each."""

    cause: str
    cure: str


class _Line(msgspec.Struct):
    """One line that the engine process writes to its standard output."""

    event: str
    address: str = ""
    metrics: str | None = None
    info: EngineInfo | None = None
    weights_bytes: int = 0
    cause: str = ""
    cure: str = ""
    phase: str = ""


class EngineProcess:
    """Started by `start`, followed by `follow`; nothing of it is left when that returns."""

    def __init__(self, command: EngineCommand, log_path: Path) -> None:
        self._command = command
        self._log_path = log_path
        self._process: Process | None = None
        self._failed: _Line | None = None
        self.phase = "starting"
        self._entered_at = 0.0
        self._phases_s: dict[str, float] = {}
        self.ready: Ready | None = None

    async def start(self) -> None:
        """Starts it with its environment added to this process's."""
        assert self._process is None
        self._entered_at = asyncio.get_running_loop().time()
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        keep = (sys.executable, "-I", keeper.__file__, "--grace", str(STOP_GRACE_S))
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *keep,
                "--watch-stdin",
                "--",
                *self._command.argv,
                stdin=PIPE,  # held open: its end tells the keeper that this process has died
                stdout=PIPE,
                stderr=log,
                env=dict(os.environ) | dict(self._command.env),
                limit=1 << 20,
            )

    async def follow(self, changed: asyncio.Event) -> None:
        """Returns when it has ended; sets `changed` with each change of `phase` or `ready`."""
        assert self._process is not None
        assert self._process.stdout is not None
        while text := await self._process.stdout.readline():
            line = msgspec.json.decode(text, type=_Line)
            if line.event == "ready":
                assert line.info is not None
                assert self._command.rank is not None
                self._enter("ready")
                self.ready = Ready(
                    self._command.rank,
                    line.address,
                    line.metrics,
                    line.info,
                    line.weights_bytes,
                    {phase: round(seconds, 1) for phase, seconds in self._phases_s.items()},
                )
            elif line.event == "failed":
                self._failed = line
            elif line.event == "phase":
                self._enter(line.phase)
            changed.set()
        await self._process.wait()

    def _enter(self, phase: str) -> None:
        """Books the time of the phase that ends, without its count of what is done."""
        now = asyncio.get_running_loop().time()
        name = self.phase.rstrip("0123456789/ ")
        self._phases_s[name] = self._phases_s.get(name, 0.0) + now - self._entered_at
        self._entered_at, self.phase = now, phase

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def ended(self) -> Ended:
        """Why it ended; for a process that has."""
        code = self._process.returncode if self._process is not None else None
        cause, cure = f"the engine process ended with code {code}", f"read {self._log_path}"
        if self._failed is not None:
            cause, cure = self._failed.cause, self._failed.cure or cure
        first, last = _errors(self._log_path)
        if first and first not in cause:
            cause = f"{cause}; first error in its log: {first}"
        if last:
            cause = f"{cause}; its log ends: {' | '.join(last)}"
        return Ended(cause, cure)


def _errors(path: Path) -> tuple[str, list[str]]:
    """The first exception in the log, which those after it follow from, and its last lines."""
    first, last = "", deque[str](maxlen=LAST_LINES)
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            for line in log:
                if not first and (found := EXCEPTION.search(line)) is not None:
                    first = found[0][:LINE_CHARACTERS]
                if line.strip():
                    last.append(" ".join(line.split())[:LINE_CHARACTERS])
    except OSError:
        pass  # it wrote none
    return first, list(last)
