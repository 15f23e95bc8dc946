"""The telemetry process of a host: its GPUs, and what gateways and engines there have to say, at
one port. Beside it the status page, where somebody has a Prometheus.

It is a process of its own, so that nothing of it can hold up a request.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from orchestrator.runtime.http_get import BadAnswer, get
from orchestrator.telemetry import CONTENT_TYPE, Metrics, metrics
from orchestrator.telemetry.certificate import not_after
from orchestrator.telemetry.gpu import GpuReader, HostReading, set_gpu_ranks, set_gpus
from orchestrator.telemetry.merge import merged
from orchestrator.telemetry.metrics.labels import Source
from orchestrator.telemetry.targets import Target, announced

READ_S = 1.0  # between two looks at the GPUs
TARGET_S = 2.0  # for one process to give its metrics
FORGET_S = 120.0  # a process that has given none for so long has ended without saying so
REQUEST_BYTES_MAX = 16_384
REQUEST_S_MAX = 30.0


class Page(Protocol):
    """What else is answered here."""

    async def answer(self, target: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        ...


@dataclass(slots=True)
class Watched:
    """What this process looks after."""

    node: str
    folder: Path
    reader: GpuReader
    certificates: Sequence[Path] = ()
    on_reading: Callable[[HostReading], None] = field(default=lambda _: None)


class TelemetryServer:
    """Answers `/metrics`, `/health` and, with a page, all that is below it."""

    def __init__(self, watched: Watched, page: Page | None) -> None:
        self._watched = watched
        self._page = page
        self._metrics = Metrics()
        self._silent_since: dict[str, float] = {}
        self._answering = asyncio.Lock()  # two scrapes at once would ask everybody twice

    async def run(self, host: str, port: int) -> None:
        """Serves until it is cancelled. Raises OSError if the port is taken."""
        server = await asyncio.start_server(self._serve, host, port)
        async with server, asyncio.TaskGroup() as group:
            group.create_task(server.serve_forever())
            group.create_task(self._read())

    async def _read(self) -> None:
        """Looks at the GPUs in a thread: a driver may take its time."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        watched = self._watched
        while True:
            seen = await asyncio.to_thread(watched.reader.read)
            set_gpus(self._metrics, watched.node, watched.reader.source, seen)
            watched.on_reading(seen)
            due = max(due + READ_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def exposition(self) -> bytes:
        """Of this process and of all that are announced."""
        async with self._answering:
            targets = announced(self._watched.folder)
            texts = await asyncio.gather(*(self._ask(at, one) for at, one in targets.items()))
            self._set_ranks(list(targets.values()))
            for path in self._watched.certificates:
                self._set_expiry(path)
            own = [("", self._metrics.exposition())]
            return merged(own + [each for each in texts if each is not None])

    async def _ask(self, path: Path, target: Target) -> tuple[str, bytes] | None:
        try:
            async with asyncio.timeout(TARGET_S):
                text = await get(target.address, "/metrics")
        except (OSError, TimeoutError, BadAnswer):
            self._silent(path, target.process, time.monotonic())
            return None
        self._silent_since.pop(target.process, None)
        self._metrics.set(metrics.TARGET_UP, 1, target.process)
        return target.process, text

    def _silent(self, path: Path, process: str, now: float) -> None:
        self._metrics.set(metrics.TARGET_UP, 0, process)
        if now >= self._silent_since.setdefault(process, now) + FORGET_S:
            path.unlink(missing_ok=True)
            self._metrics.forget(metrics.TARGET_UP, process)
            del self._silent_since[process]

    def _set_ranks(self, targets: Sequence[Target]) -> None:
        if self._watched.reader.source is not Source.NVML:
            return  # a recording's GPUs are nobody's
        ranks = [
            (gpu, one.model, one.role, one.gang, one.rank) for one in targets for gpu in one.gpus
        ]
        set_gpu_ranks(self._metrics, self._watched.node, ranks)

    def _set_expiry(self, path: Path) -> None:
        try:
            left = not_after(path.read_text(encoding="ascii")) - datetime.now(UTC)
        except (OSError, ValueError):
            self._metrics.forget(metrics.CERTIFICATE, str(path))
        else:
            self._metrics.set(metrics.CERTIFICATE, left.total_seconds(), str(path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target = head.split(b" ", 2)[:2]
                status, kind, body = await self._answer(method, target.decode("latin-1"))
                writer.write(
                    f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
                    "\r\nConnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # it has gone, or was no HTTP
        except asyncio.LimitOverrunError:
            pass
        finally:
            writer.close()

    async def _answer(self, method: bytes, target: str) -> tuple[int, str, bytes]:
        if method != b"GET":
            return 405, "text/plain", b"only GET\n"
        path = target.partition("?")[0]
        if path == "/metrics":
            return 200, CONTENT_TYPE, await self.exposition()
        if path == "/health":
            return 200, "text/plain", b"ok\n"
        if self._page is not None:
            return await self._page.answer(target)
        return 404, "text/plain", b"there are /metrics and /health\n"
