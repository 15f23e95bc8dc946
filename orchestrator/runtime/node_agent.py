"""One small Ray actor per bundle: starts that node's engine process and watches it."""

import asyncio
import fcntl
import os
import re
import socket
import struct
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import msgspec
import ray

from orchestrator.core import EngineStartError
from orchestrator.engines import EngineInfo
from orchestrator.gateway import Supervisor
from orchestrator.runtime import keeper
from orchestrator.runtime.launch import NodeFacts
from orchestrator.runtime.ports import PortClaims

STOP_GRACE_S = 5.0  # between asking an engine to end and ending it
SIOCGIFADDR = 0x8915  # linux/sockios.h
EXCEPTION = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .+")  # the last line of a traceback
ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine process serves: where its token channel and its metrics are."""

    address: str
    metrics: str | None
    info: EngineInfo


class _Line(msgspec.Struct):
    """One line that the engine process writes to its standard output."""

    event: str
    address: str = ""
    metrics: str | None = None
    info: EngineInfo | None = None
    cause: str = ""
    cure: str = ""
    phase: str = ""


class NodeAgent:
    """The engine process of one node of a gang; the process never outlives the actor."""

    def __init__(self) -> None:
        self._host = ray.util.get_node_ip_address()
        self._ports = PortClaims(self._host)
        self._supervisor = Supervisor()
        self._process: Process | None = None
        self._log_path = Path(os.devnull)
        self._failed: _Line | None = None
        self._ready: Ready | None = None
        self._news = asyncio.Event()  # ready or ended
        self._ended = asyncio.Event()

    async def describe(self, ports: int) -> NodeFacts:
        """The node's id and address, and that many ports, this actor's while it lives."""
        return NodeFacts(
            ray.get_runtime_context().get_node_id(),
            self._host,
            _interface(self._host),
            self._ports.take(ports),
        )

    async def start(self, argv: tuple[str, ...], env: dict[str, str], log_path: str) -> None:
        """Starts the engine process; `env` is added to this process's environment."""
        assert self._process is None
        keeper.adopt_orphans()
        self._log_path = Path(log_path)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        keep = (sys.executable, "-I", keeper.__file__, "--grace", str(STOP_GRACE_S))
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *keep,
                "--watch-stdin",
                "--",
                *argv,
                stdin=PIPE,  # held open: its end tells the keeper that this actor has died
                stdout=PIPE,
                stderr=log,
                env=dict(os.environ) | env,
                limit=1 << 20,
            )
        await self._supervisor.start()
        self._supervisor.spawn(self._follow(self._process))

    async def ready(self) -> Ready:
        """Returns when the engine serves; raises EngineStartError if it ends before."""
        await self._news.wait()
        if self._ready is None:
            raise EngineStartError(self._cause(), self._cure())
        return self._ready

    async def ended(self) -> str:
        """Returns when the process has ended, with the cause in one sentence."""
        await self._ended.wait()
        return self._cause()

    async def stop(self) -> None:
        """Returns when nothing of the engine process is left."""
        if self._process is not None and not self._ended.is_set():
            self._process.terminate()
            await self._ended.wait()

    async def _follow(self, process: Process) -> None:
        assert process.stdout is not None
        while text := await process.stdout.readline():
            line = msgspec.json.decode(text, type=_Line)
            if line.event == "ready":
                assert line.info is not None
                self._ready = Ready(line.address, line.metrics, line.info)
                self._news.set()
            elif line.event == "failed":
                self._failed = line
        await process.wait()
        # A keeper that was itself killed could not do its work: what it kept is now ours.
        await asyncio.to_thread(keeper.end_all_below, os.getpid())
        self._news.set()
        self._ended.set()

    def _cause(self) -> str:
        code = self._process.returncode if self._process is not None else None
        cause = f"the engine process ended with code {code}"
        if self._failed is not None:
            cause = self._failed.cause
        first = _first_error(self._log_path)
        return f"{cause}; first error in its log: {first}" if first not in cause else cause

    def _cure(self) -> str:
        if self._failed is not None and self._failed.cure:
            return self._failed.cure
        return f"read {self._log_path}"


def _interface(host: str) -> str:
    """The name of the interface with that IPv4 address; raises EngineStartError if none has it."""
    with socket.socket() as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # has no IPv4 address
            if socket.inet_ntoa(answer[20:24]) == host:
                return name
    raise EngineStartError(
        f"no network interface of this node has the address {host}",
        "give Ray an address of the node's own with --node-ip-address",
    )


def _first_error(path: Path) -> str:
    """The first exception in the log, which those after it follow from; "" if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            found = (EXCEPTION.search(line) for line in log)
            return next((match[0][:ERROR_CHARACTERS] for match in found if match), "")
    except OSError:
        return ""
