"""Loads an HTTP endpoint on the loopback with streamed chat completions, and measures.

Raw protocol on one loop; what it costs itself is the same for every contender. Closed: so many
clients, each asking again when its answer has ended. Open: requests at given instants.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import psutil
from typing_extensions import override

from orchestrator.engines.channel.sockets import no_delay, split_address

END = b"0\r\n\r\n"
TOKEN = b'data: {"id"'


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a trace: when, in seconds from the start, its body, and the tokens asked."""

    at_s: float
    body: bytes
    tokens: int


@dataclass(slots=True)
class Outcome:
    """What became of one request; instants of `time.perf_counter`."""

    asked_at: float
    first_at: float = 0.0
    ended_at: float = 0.0
    tokens: int = 0
    failed: str = ""
    gap_max_s: float = 0.0
    late_s: float = 0.0  # behind the trace when it was sent

    @property
    def ttft_s(self) -> float:
        """From asking to the first token."""
        return self.first_at - self.asked_at


def request_bytes(body: bytes, path: str = "/v1/chat/completions") -> bytes:
    """The request as it is sent."""
    return (
        b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.done: asyncio.Future[Outcome] | None = None
        self._tail = b""
        self._answered = False
        self._heard_at = 0.0

    def ask(self, request: bytes, late_s: float = 0.0) -> "asyncio.Future[Outcome]":
        """Sends a request; the future is done when its answer has ended."""
        assert self.done is None
        self.done = asyncio.get_running_loop().create_future()
        self.outcome = Outcome(time.perf_counter(), late_s=late_s)
        self._tail, self._answered = b"", False
        self.transport.write(request)
        return self.done

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        no_delay(transport)

    @override
    def data_received(self, data: bytes) -> None:
        outcome = self.outcome
        if outcome is None:
            return
        now = time.perf_counter()
        if not self._answered:
            self._answered = True
            if not data.startswith(b"HTTP/1.1 200"):
                self._end(data[:200].decode("latin-1"))
                self.transport.abort()
                return
        tokens = data.count(TOKEN)
        if tokens:
            if not outcome.tokens:
                outcome.first_at = now
            else:
                outcome.gap_max_s = max(outcome.gap_max_s, now - self._heard_at)
            self._heard_at = now
            outcome.tokens += tokens
        self._tail = data[-5:] if len(data) >= 5 else (self._tail + data)[-5:]
        if self._tail == END:
            self._end("")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc}")

    def _end(self, failed: str) -> None:
        if self.done is None or self.outcome is None:
            return
        self.outcome.ended_at = time.perf_counter()
        self.outcome.failed = failed
        done, self.done = self.done, None
        if not done.done():
            done.set_result(self.outcome)


async def connected(address: str) -> Client:
    """A client of this host:port, on the loopback."""
    host, port = split_address(address)
    assert host in {"127.0.0.1", "::1"}, "only this machine is ever loaded"
    _, client = await asyncio.get_running_loop().create_connection(Client, host, port)
    return client


async def closed(
    addresses: Sequence[str], clients: int, seconds: float, request: bytes
) -> list[Outcome]:
    """Outcomes of those that were asked within the time; clients are dealt to the addresses."""
    until = time.perf_counter() + seconds
    outcomes: list[Outcome] = []

    async def one(number: int) -> None:
        client = await connected(addresses[number % len(addresses)])
        while time.perf_counter() < until:
            outcomes.append(await client.ask(request))
        client.transport.abort()

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(one(number))
    return outcomes


async def open_loop(addresses: Sequence[str], asks: Sequence[Ask], drain_s: float) -> list[Outcome]:
    """One outcome for each; those without an end `drain_s` after the last was sent have failed."""
    sender = _Sender(addresses)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, ask in enumerate(asks):
            if (wait_s := ask.at_s - (time.perf_counter() - sender.began)) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(group.create_task(sender.send(number, ask)))
        _, left = await asyncio.wait(tasks, timeout=drain_s)
        for task in left:
            task.cancel()
    return sender.close()


class _Sender:
    """Keeps clients that are idle, and every outcome."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._idle: dict[str, list[Client]] = {address: [] for address in addresses}
        self._outcomes: list[Outcome] = []
        self.began = time.perf_counter()

    async def send(self, number: int, ask: Ask) -> None:
        address = self._addresses[number % len(self._addresses)]
        idle = self._idle[address]
        client = idle.pop() if idle else await connected(address)
        done = client.ask(request_bytes(ask.body), time.perf_counter() - self.began - ask.at_s)
        assert client.outcome is not None
        self._outcomes.append(client.outcome)
        if not (await done).failed:
            idle.append(client)

    def close(self) -> list[Outcome]:
        for outcome in self._outcomes:
            if not outcome.ended_at:
                outcome.failed = "not ended"
        for clients in self._idle.values():
            for client in clients:
                client.transport.abort()
        return self._outcomes


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time of these processes and all below them, user and system, since they began."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
