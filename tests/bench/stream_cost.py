"""Prints the CPU time that a streamed token takes, from the engine's output to the client's socket.

`python -m tests.bench.stream_cost`: engines that pace their steps, a gateway, and beside them in
the same run bare uvicorn, which sends constant chunks at the same pace; each in a process of its
own, all over loopback. The client's process is not counted. CPU times are whole processes', user
and system, over a window in which every stream runs.
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
from pathlib import Path
from typing import cast

import psutil
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
from orchestrator.gateway import DirectProtocol, Keys, Member, Models, build_app
from orchestrator.spec import EngineKind, EngineSpec, ModelSpec, PoolSpec, Spec
from orchestrator.telemetry import open_log

STEP_S = 0.02
WINDOW_S = 6.0
STREAMS = (64, 256)
ENGINES = (1, 8)
MODEL = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), engine=EngineSpec(kind=EngineKind.FAKE))
BODY = json.dumps(
    {
        "model": "deepseek-reasoner",
        "stream": True,
        "max_tokens": 30_000,
        "messages": [{"role": "user", "content": "Count until you are told to stop."}],
    }
).encode()
REQUEST = (
    b"POST /chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
CHUNK = (
    b'data: {"id":"00000000-0000-4000-8000-000000000000","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"deepseek-reasoner","system_fingerprint":"fp_0000000000",'
    b'"choices":[{"index":0,"delta":{"content":null,"reasoning_content":" word"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)


class Pacer:
    """An engine that gives each running request one token every STEP_S, at no other cost."""

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
        self._open[submit.request_id] = None

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
        Keys(None, written[0]),
        lambda: models.update_pool(MODEL.name, Role.UNIFIED, members),
    )
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
    """One stream: counts the chunks that come."""

    def __init__(self) -> None:
        self.chunks = 0
        self.failed = b""
        self._answered = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        transport.write(REQUEST)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._answered and not data.startswith(b"HTTP/1.1 200"):
            self.failed = data[:300]
        self._answered = True
        self.chunks += data.count(b"data: ")

    def close(self) -> None:
        self._transport.abort()


async def _ask(address: str, streams: int, pids: Sequence[int]) -> dict[str, float]:
    """CPU seconds of each process, and tokens, over the window."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for _ in range(streams):
        _, client = await loop.create_connection(_Client, host, int(port))
        clients.append(client)
    async with asyncio.timeout(30):
        while any(client.chunks < 5 for client in clients):
            failed = next((client.failed for client in clients if client.failed), b"")
            assert not failed, failed
            await asyncio.sleep(0.05)
    began = [_cpu_s(pid) for pid in pids], sum(client.chunks for client in clients)
    await asyncio.sleep(WINDOW_S)
    spent = [_cpu_s(pid) - before for pid, before in zip(pids, began[0], strict=True)]
    tokens = sum(client.chunks for client in clients) - began[1]
    for client in clients:
        client.close()
    await asyncio.sleep(0.3)
    asked = streams * WINDOW_S / STEP_S
    return {
        "tokens": tokens,
        "paced": tokens / asked,
        "us_per_token": 1e6 * sum(spent) / tokens,
        "first_us_per_token": 1e6 * spent[0] / tokens,
    }


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def _started(*arguments: str) -> Iterator[tuple[int, str]]:
    command = [sys.executable, "-m", "tests.bench.stream_cost", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


def measure(engines: int, streams: int) -> dict[str, float]:
    """One alternation: bare uvicorn, then the gateway with its engines."""
    with ExitStack() as stack:
        bare_pid, bare = stack.enter_context(_started("bare"))
        started = [stack.enter_context(_started("engine")) for _ in range(engines)]
        addresses = [address for _, address in started]
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pid, gateway = stack.enter_context(_started("gateway", folder, *addresses))
        time.sleep(1.0)
        loop_factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            floor = runner.run(_ask(bare, streams, [bare_pid]))
            ours = runner.run(_ask(gateway, streams, [pid, *(pid for pid, _ in started)]))
    return {
        "engines": engines,
        "streams": streams,
        "bare_us": floor["us_per_token"],
        "gateway_us": ours["first_us_per_token"],
        "engines_us": ours["us_per_token"] - ours["first_us_per_token"],
        "paced": min(floor["paced"], ours["paced"]),
    }


def main() -> None:
    """One line of JSON per number of engines and streams."""
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
                for engines in ENGINES:
                    for streams in STREAMS:
                        row = measure(engines, streams)
                        _say(json.dumps({key: round(value, 2) for key, value in row.items()}))


if __name__ == "__main__":
    main()
