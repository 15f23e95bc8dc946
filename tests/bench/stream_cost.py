"""Prints what a streamed token costs from the engine's output to the client's socket, and how late
it is there.

`python -m tests.bench.stream_cost`: engines that pace their steps, gateways, a HAProxy where it is
asked for, and beside them in the same run bare uvicorn, which sends constant chunks at the same
pace; each in a process of its own, all over loopback. The client's process is not counted. CPU
times are whole processes', user and system, over a window in which every stream runs and no request
begins or ends.

An engine answers a request's first token at once, so a client's time to first token is what the
path adds; likewise what a gap between two tokens has beyond a step. Requests for the former, with a
prompt of PROBE_WORDS, come one by one in a second window, while the streams run on: what the
gateways take there beyond the first window's pace is what such a request costs. Any server has to
encode the prompt, so the time of that alone is measured beside it.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from orchestrator.codec import Tokenizer
from orchestrator.core import RankId, Role
from orchestrator.engines import (
    ChannelServer,
    End,
    EngineInfo,
    EngineLoad,
    Finish,
    Listener,
    Submit,
)
from orchestrator.engines.channel.sockets import bound_socket, name_of
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.gateway import DirectProtocol, Member, Models, Tenants, build_app, settle
from orchestrator.spec import EngineKind, EngineSpec, ModelSpec, PoolSpec, Spec
from orchestrator.telemetry import open_log
from tests.bench.contenders import contender
from tests.bench.http_load import cpu_s, percentile

STEP_S = 0.02
WINDOW_S = 4.0
PROBES = 30
PROBE_EVERY_S = 0.15  # of 64 streams, those that a gateway gets if each has 430 tokens
PROBE_WORDS = 1_000
MODEL = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), engine=EngineSpec(kind=EngineKind.FAKE))


def request_bytes(prompt: str) -> bytes:
    """A request for a stream without end."""
    message = {"role": "user", "content": prompt}
    body = {"model": "deepseek-reasoner", "stream": True, "max_tokens": 30_000}
    data = json.dumps(body | {"messages": [message]}).encode()
    return (
        b"POST /chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(data), data)
    )


REQUEST = request_bytes("Count until you are told to stop.")
PROBE = request_bytes("word " * PROBE_WORDS)
CHUNK = (
    b'data: {"id":"00000000-0000-4000-8000-000000000000","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"deepseek-reasoner","system_fingerprint":"fp_0000000000",'
    b'"choices":[{"index":0,"delta":{"content":null,"reasoning_content":" word"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)


class Pacer:
    """An engine that gives a request a token at once and one every STEP_S, at no other cost."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words = words
        self._open: dict[str, None] = {}
        self._listener: Listener | None = None
        self._steps = 0
        self._next_at = 0.0

    async def start(self, listener: Listener) -> EngineInfo:
        self._listener = listener
        loop = asyncio.get_running_loop()
        self._next_at = loop.time()
        self._step()
        return EngineInfo("pacer", MODEL.name, 1 << 20, 64, 1 << 20)

    def submit(self, submit: Submit) -> None:
        asyncio.get_running_loop().call_soon(self._first, submit.request_id)

    def _first(self, request_id: str) -> None:
        assert self._listener is not None
        self._open[request_id] = None
        self._listener.on_tokens(request_id, [self._words[0]])

    def _step(self) -> None:
        assert self._listener is not None
        on_tokens = self._listener.on_tokens
        self._steps += 1
        word = self._words[self._steps % len(self._words)]
        for request_id in self._open:
            on_tokens(request_id, [word])
        self._next_at += STEP_S
        asyncio.get_running_loop().call_at(self._next_at, self._step)

    def abort(self, request_id: str) -> None:
        if request_id in self._open:
            del self._open[request_id]
            assert self._listener is not None
            self._listener.on_end(request_id, End(Finish.ABORTED))

    def load(self) -> EngineLoad:
        return EngineLoad(len(self._open), 0, 0.0, self._steps)

    def failure(self) -> str | None:
        return None

    def metrics(self) -> bytes:
        return b""

    async def stop(self) -> None: ...


async def _engine() -> None:
    tokenizer = Tokenizer.load(published_tokenizer())
    words = tokenizer.encode(" The quick brown fox thinks about the lazy dog, then counts" * 20)
    server = ChannelServer(Pacer(words), "pacer", Role.UNIFIED)
    await server.start()
    sock = bound_socket("127.0.0.1", 0)
    await server.listen(sock)
    _say(name_of(sock))
    await server.watch()


async def _gateway(folder: Path, addresses: Sequence[str]) -> None:
    spec = Spec(models=(MODEL,))
    written = [open_log("bench", folder / name) for name in ("log", "decisions")]
    tokenizers = {MODEL.name: Tokenizer.load(published_tokenizer())}
    models = Models(spec, "gateway-bench", tokenizers, *written)
    members = [
        Member(RankId(f"pacer-{at}/0"), Role.UNIFIED, address, "pacer")
        for at, address in enumerate(addresses)
    ]
    app = build_app(
        models,
        Tenants(spec, "gateway-bench", models.metrics, written[0]),
        lambda: models.update_pool(MODEL.name, Role.UNIFIED, members),
    )
    settle()
    await _serve(
        uvicorn.Config(app, http=DirectProtocol, log_config=None, lifespan="on", ws="none")
    )


async def _bare() -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            next_at += STEP_S
            await asyncio.sleep(next_at - loop.time())
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})

    await _serve(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))


async def _serve(config: uvicorn.Config) -> None:
    sock = bound_socket("127.0.0.1", 0)
    _say(name_of(sock))
    await uvicorn.Server(config).serve([sock])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Client(asyncio.Protocol):
    """One stream: counts the chunks that come, and by how much each is late."""

    def __init__(self, request: bytes) -> None:
        self.chunks = 0
        self.failed = b""
        self.first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.gaps_s: list[float] = []
        self._request = request
        self._heard_at = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self._asked_at = time.perf_counter()
        transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._heard_at and not data.startswith(b"HTTP/1.1 200"):
            self.failed = data[:300]
        self.gaps_s.append(now - self._heard_at)
        self._heard_at = now
        self.chunks += data.count(b'"id":')
        if self.chunks > 1 and not self.first.done():  # the first only names the assistant
            self.first.set_result(now - self._asked_at)

    def close(self) -> None:
        self._transport.abort()


@dataclass(slots=True)
class Seen:
    """What clients saw over the window."""

    spent_s: list[float]  # CPU of each process
    tokens: int
    paced: float  # share of the tokens that were due
    gaps_s: list[float]
    ttfts_s: list[float] = field(default_factory=list)
    probe_s: list[float] = field(default_factory=list)  # CPU of each process for one more request
    probe_gaps_s: list[float] = field(default_factory=list)  # while those came

    def us(self, spent_s: float) -> float:
        """CPU microseconds per token."""
        return 1e6 * spent_s / self.tokens


async def _connected(address: str, request: bytes) -> _Client:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: _Client(request), host, int(port))
    return client


async def _ask(
    addresses: Sequence[str], streams: int, pids: Sequence[int], probes: int = 0
) -> Seen:
    """Streams at these servers, dealt in turn."""
    clients = [
        await _connected(addresses[number % len(addresses)], REQUEST) for number in range(streams)
    ]
    async with asyncio.timeout(30):
        while any(client.chunks < 5 for client in clients):
            failed = next((client.failed for client in clients if client.failed), b"")
            assert not failed, failed
            await asyncio.sleep(0.05)
    for client in clients:
        client.gaps_s.clear()
    before_s, chunks = [cpu_s((pid,)) for pid in pids], sum(client.chunks for client in clients)
    began_at = time.perf_counter()
    await asyncio.sleep(WINDOW_S)
    window_s = time.perf_counter() - began_at
    after_s = [cpu_s((pid,)) for pid in pids]
    tokens = sum(client.chunks for client in clients) - chunks
    paced = tokens * STEP_S / (streams * window_s)
    spent_s = [after - before for after, before in zip(after_s, before_s, strict=True)]
    seen = Seen(spent_s, tokens, paced, _gaps_s(clients))
    if probes:
        began_at = time.perf_counter()
        seen.ttfts_s = [await _probe(addresses[0], number) for number in range(probes)]
        share = (time.perf_counter() - began_at) / window_s
        seen.probe_s = [
            (cpu_s((pid,)) - before - spent * share) / probes
            for pid, before, spent in zip(pids, after_s, spent_s, strict=True)
        ]
        seen.probe_gaps_s = _gaps_s(clients)
    for client in clients:
        client.close()
    await asyncio.sleep(0.3)
    return seen


def _gaps_s(clients: Sequence[_Client]) -> list[float]:
    """Those since the last time."""
    gaps_s = [gap_s for client in clients for gap_s in client.gaps_s]
    for client in clients:
        client.gaps_s.clear()
    return gaps_s


async def _probe(address: str, number: int) -> float:
    """Time to first token of one more request, which then ends; at another point of a step each."""
    await asyncio.sleep(PROBE_EVERY_S + number * STEP_S / PROBES)
    client = await _connected(address, PROBE)
    async with asyncio.timeout(10):
        ttft_s = await client.first
    client.close()
    return ttft_s


def _encode_s() -> float:
    """What it takes to encode a probe's prompt, and nothing else: the median.

    As often as probes come: at once after another, with everything in caches, it takes a quarter.
    """
    tokenizer = Tokenizer.load(published_tokenizer())
    spent_s: list[float] = []
    for _ in range(PROBES // 3):
        time.sleep(PROBE_EVERY_S)
        began_s = time.perf_counter()
        tokenizer.encode("word " * PROBE_WORDS)
        spent_s.append(time.perf_counter() - began_s)
    return percentile(spent_s, 0.5)


@contextmanager
def _started(*arguments: str) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.bench.stream_cost", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Setting:
    """One row."""

    engines: int
    streams: int
    gateways: int = 1
    haproxy: bool = False


SETTINGS = (
    Setting(1, 64),
    Setting(1, 192),  # of the 256 that a gateway may have at a rank; the probes come on top
    Setting(1, 64, haproxy=True),
    Setting(8, 256),
    Setting(8, 256, gateways=2),
    Setting(8, 256, haproxy=True),
)


def measure(setting: Setting) -> dict[str, float]:
    """One alternation: bare uvicorn, then the gateways with their engines."""
    with ExitStack() as stack:
        bare_pid, bare = stack.enter_context(_started("bare"))
        engines = [stack.enter_context(_started("engine")) for _ in range(setting.engines)]
        addresses = [address for _, address in engines]
        gateways = []
        for _ in range(setting.gateways):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            gateways.append(stack.enter_context(_started("gateway", folder, *addresses)))
        time.sleep(1.0)
        front = [address for _, address in gateways]
        pids = [pid for pid, _ in (*gateways, *engines)]
        if setting.haproxy:
            proxy = stack.enter_context(contender("haproxy", front))
            front = list(proxy.addresses)
            pids += proxy.pids
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            floor = runner.run(_ask([bare], setting.streams, [bare_pid]))
            ours = runner.run(_ask(front, setting.streams, pids, PROBES))
    last = setting.gateways + setting.engines
    late_ms, probed_late_ms, bare_late_ms = (
        [1e3 * (gap_s - STEP_S) for gap_s in gaps_s]
        for gaps_s in (ours.gaps_s, ours.probe_gaps_s, floor.gaps_s)
    )
    ttfts_ms = [1e3 * ttft_s for ttft_s in ours.ttfts_s]
    return {
        "engines": setting.engines,
        "streams": setting.streams,
        "gateways": setting.gateways,
        "haproxy": setting.haproxy,
        "bare_us": floor.us(floor.spent_s[0]),
        "gateway_us": ours.us(sum(ours.spent_s[: setting.gateways])),
        "engines_us": ours.us(sum(ours.spent_s[setting.gateways : last])),
        "haproxy_us": ours.us(sum(ours.spent_s[last:])),
        "busy": max(ours.spent_s[: setting.gateways]) / WINDOW_S,
        "ttft_ms_p50": percentile(ttfts_ms, 0.5),
        "ttft_ms_p99": percentile(ttfts_ms, 0.99),
        "encode_ms": 1e3 * _encode_s(),
        "request_ms": 1e3 * sum(ours.probe_s[: setting.gateways]),
        "itl_ms_p99": percentile(late_ms, 0.99),
        "probed_itl_ms_p99": percentile(probed_late_ms, 0.99),
        "bare_itl_ms_p99": percentile(bare_late_ms, 0.99),
        "paced": min(floor.paced, ours.paced),
    }


def main() -> None:
    """One line of JSON for each setting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("engine", "gateway", "bare"))
    parser.add_argument("addresses", nargs="*")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match options.what:
            case "engine":
                runner.run(_engine())
            case "gateway":
                runner.run(_gateway(Path(options.addresses[0]), options.addresses[1:]))
            case "bare":
                runner.run(_bare())
            case _:
                for setting in SETTINGS:
                    row = measure(setting)
                    _say(json.dumps({key: round(value, 2) for key, value in row.items()}))


if __name__ == "__main__":
    main()
