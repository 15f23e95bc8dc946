"""Simulated engines with HTTP servers like vLLM's, for routers to be measured in front of.

`python -m tests.bench.http_engines OPTIONS` serves several in one process and prints their
addresses. Four characters of a prompt are a token. Time to first token is a serial prefill: a base
and a price for each token that the engine's paged cache (least recently used goes first) does not
hold; then one token a step for every running request. Their own cost is low and not counted.
"""

import argparse
import asyncio
import functools
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import msgspec
import uvloop
import zmq
from typing_extensions import override

from orchestrator.engines.channel.sockets import bound_socket, name_of, no_delay

TOKEN_CHARS = 4
HASH_MASK = (1 << 63) - 1  # what every reader of events takes for a hash
ENCODING = "latin-1"  # of texts: a character is a byte of a token's id
MODEL = "mock"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
WORD = b'"content":" word"'  # of what is a token
EVENT = (
    b'data: {"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"mock","choices":[{"index":0,"delta":{"content":" word"},'
    b'"logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"mock","choices":[{"index":0,"delta":{},"logprobs":null,'
    b'"finish_reason":"length"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,'
    b'"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN = chunk(EVENT)


@dataclass(frozen=True, slots=True)
class Model:
    """What each engine is like; times in seconds."""

    base_s: float
    token_s: float
    step_s: float
    blocks: int
    block_tokens: int
    slots: int


class Message(msgspec.Struct):
    """One message."""

    content: str = ""


class Asked(msgspec.Struct):
    """What is read of a request."""

    messages: list[Message] = []
    prompt: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None  # what other routers make of it

    @property
    def tokens(self) -> int:
        """How many are wanted."""
        return self.max_tokens or self.max_completion_tokens or 16

    @property
    def text(self) -> str:
        """All that is prefilled."""
        return "".join(message.content for message in self.messages) or self.prompt


class Writes(Protocol):
    """Where an answer goes."""

    def write(self, data: bytes) -> None:
        """More of it."""
        ...


class Client(Protocol):
    """Whose request it is."""

    gone: bool

    @property
    def transport(self) -> Writes:
        """Where its answer goes."""
        ...


@dataclass(slots=True, eq=False)
class Running:
    """One request."""

    server: "Client"
    text: str
    hashes: list[int]
    left: int
    wanted: int
    cached_tokens: int = 0


@dataclass(slots=True)
class Events:
    """vLLM's ZMQ publisher of KV events: topic, sequence, and a batch with tagged maps."""

    socket: "zmq.Socket[bytes]"
    block_tokens: int
    sequence: int = 0

    def stored(self, hashes: list[int], at: int, text: str) -> None:
        """The blocks from number `at` on have been computed."""
        chars = self.block_tokens * TOKEN_CHARS
        part = text[at * chars : len(hashes) * chars]
        self._send(
            {
                "type": "BlockStored",
                "block_hashes": hashes[at:],
                "parent_block_hash": hashes[at - 1] if at else None,
                "token_ids": ids_of(part),
                "block_size": self.block_tokens,
                "lora_id": None,
                "medium": "GPU",
                "lora_name": None,
            }
        )

    def removed(self, hashes: list[int]) -> None:
        """These have left the cache."""
        self._send({"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU"})

    def _send(self, event: dict[str, object]) -> None:
        batch = msgspec.msgpack.encode([time.time(), [event], 0])
        self.socket.send_multipart([b"", self.sequence.to_bytes(8, "big"), batch])
        self.sequence += 1


def ids_of(text: str) -> list[int]:
    """A stand-in for a tokenizer: a token's id is its four characters."""
    data = text.encode(ENCODING, "replace")
    whole = len(data) // TOKEN_CHARS * TOKEN_CHARS
    return memoryview(data[:whole]).cast("I").tolist()


@dataclass(slots=True)
class Engine:
    """One engine; all its times are the loop's."""

    model: Model
    events: Events | None
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    waiting: deque[Running] = field(default_factory=deque)
    running: dict[Running, None] = field(default_factory=dict)
    prefilling: int = 0
    free_at: float = 0.0
    step: asyncio.TimerHandle | None = None
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def submit(self, request: Running) -> None:
        """Takes a request."""
        self.requests += 1
        if len(self.running) + self.prefilling < self.model.slots:
            self._prefill(request)
        else:
            self.waiting.append(request)

    def leave(self, server: "Client") -> None:
        """A client has gone."""
        for request in [request for request in self.running if request.server is server]:
            del self.running[request]
            self._admit()
        self.waiting = deque(each for each in self.waiting if each.server is not server)

    def hashes(self, text: str) -> list[int]:
        """The chained hashes of the text's full blocks."""
        chars = self.model.block_tokens * TOKEN_CHARS
        found, key = [], 0
        for at in range(0, len(text) - chars + 1, chars):
            key = hash((key, text[at : at + chars])) & HASH_MASK
            found.append(key)
        return found

    def _prefill(self, request: Running) -> None:
        self.prefilling += 1
        hit = 0
        for key in request.hashes:
            if key not in self.cache:
                break
            self.cache.move_to_end(key)
            hit += 1
        tokens = max(1, len(request.text) // TOKEN_CHARS)
        request.cached_tokens = hit * self.model.block_tokens
        self.prompt_tokens += tokens
        self.cached_tokens += request.cached_tokens
        loop = asyncio.get_running_loop()
        work_s = self.model.base_s + self.model.token_s * (tokens - request.cached_tokens)
        self.free_at = max(self.free_at, loop.time()) + work_s
        loop.call_at(self.free_at, self._first, request)

    def _first(self, request: Running) -> None:
        self.prefilling -= 1
        self._keep(request)
        if request.server.gone:
            self._admit()
            return
        request.left -= 1
        request.server.transport.write(HEAD + TOKEN)
        if not request.left:
            self._end(request)
            return
        self.running[request] = None
        if self.step is None:
            loop = asyncio.get_running_loop()
            self.step = loop.call_later(self.model.step_s, self._step)

    def _step(self) -> None:
        self.step = None
        for request in list(self.running):
            request.left -= 1
            if request.left:
                request.server.transport.write(TOKEN)
            else:
                del self.running[request]
                self._end(request)
        if self.running:
            loop = asyncio.get_running_loop()
            self.step = loop.call_later(self.model.step_s, self._step)

    def _end(self, request: Running) -> None:
        prompt = max(1, len(request.text) // TOKEN_CHARS)
        last = LAST % (prompt, request.wanted, prompt + request.wanted, request.cached_tokens)
        token = TOKEN if request.wanted > 1 else b""
        request.server.transport.write(token + chunk(last) + chunk(DONE) + b"0\r\n\r\n")
        self._admit()

    def _admit(self) -> None:
        while self.waiting and len(self.running) + self.prefilling < self.model.slots:
            self._prefill(self.waiting.popleft())

    def _keep(self, request: Running) -> None:
        known = next(
            (at for at, key in enumerate(request.hashes) if key not in self.cache),
            len(request.hashes),
        )
        for key in request.hashes:
            self.cache[key] = None
            self.cache.move_to_end(key)
        removed = []
        while len(self.cache) > self.model.blocks:
            removed.append(self.cache.popitem(last=False)[0])
        if self.events is not None:
            if known < len(request.hashes):
                self.events.stored(request.hashes, known, request.text)
            if removed:
                self.events.removed(removed)


class Server(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held = b""
        self.gone = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        no_delay(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._engine.leave(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._held.startswith(b"PRI * HTTP/2"):  # a router looks whether this speaks gRPC
            self.transport.abort()
            return
        while True:
            head, found, rest = self._held.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            size = int(length or b"0")
            if not found or len(rest) < size:
                return
            self._held = rest[size:]
            method, path, _ = head.split(b" ", 2)
            self._answer(method, path, rest[:size])

    def _answer(self, method: bytes, path: bytes, body: bytes) -> None:
        if method == b"POST" and path in {b"/v1/chat/completions", b"/v1/completions"}:
            asked = msgspec.json.decode(body, type=Asked)
            text = asked.text
            hashes = self._engine.hashes(text)
            self._engine.submit(Running(self, text, hashes, asked.tokens, asked.tokens))
            return
        answer = ANSWERS.get(path)
        if answer is None:
            self._reply(b"404 Not Found", b"{}")
        else:
            self._reply(b"200 OK", answer(self._engine, body))

    def _reply(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n" % status
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))


def _metrics(engine: Engine, _: bytes) -> bytes:
    running = len(engine.running) + engine.prefilling
    usage = len(engine.cache) / engine.model.blocks
    lines = [
        *(
            "# TYPE vllm:num_requests_running gauge",
            f'vllm:num_requests_running{{e="0"}} {running}',
        ),
        f'vllm:num_requests_waiting{{e="0"}} {len(engine.waiting)}',
        f'vllm:kv_cache_usage_perc{{e="0"}} {usage}',
        f'vllm:cache_config_info{{block_size="{engine.model.block_tokens}",'
        f'num_gpu_blocks="{engine.model.blocks}"}} 1.0',
    ]
    return ("\n".join(lines) + "\n").encode()


def _ids(_: Engine, body: bytes) -> bytes:
    ids = ids_of(msgspec.json.decode(body, type=Asked).text)
    return msgspec.json.encode({"tokens": ids, "token_ids": ids, "count": len(ids)})


def _reset(engine: Engine, _: bytes) -> bytes:
    engine.cache.clear()
    engine.requests = engine.prompt_tokens = engine.cached_tokens = 0
    return b"{}"


def _stats(engine: Engine, _: bytes) -> bytes:
    return msgspec.json.encode(
        {
            "requests": engine.requests,
            "prompt_tokens": engine.prompt_tokens,
            "cached_tokens": engine.cached_tokens,
        }
    )


def _constant(value: object) -> Callable[[Engine, bytes], bytes]:
    data = msgspec.json.encode(value)
    return lambda _engine, _body: data


_INFO = {"model_path": MODEL, "served_model_name": MODEL, "tokenizer_path": MODEL, "dp_size": 1}
ANSWERS: dict[bytes, Callable[[Engine, bytes], bytes]] = {
    b"/health": _constant({}),
    b"/v1/models": _constant(
        {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 200_000}]}
    ),
    b"/metrics": _metrics,
    b"/reset": _reset,
    b"/stats": _stats,
    # What other routers ask of engines before or beside a request.
    b"/server_info": _constant(_INFO),
    b"/get_server_info": _constant(_INFO),
    b"/model_info": _constant({**_INFO, "is_generation": True}),
    b"/get_model_info": _constant({**_INFO, "is_generation": True}),
    b"/tokenize": _ids,
    b"/v1/chat/completions/render": _ids,
}


async def listening(options: argparse.Namespace) -> list[tuple[Engine, str, str]]:
    """Each engine with its address and, if it has events, the address it publishes them at."""
    model = Model(
        options.base_s,
        options.token_s,
        options.step_s,
        options.blocks,
        options.block_tokens,
        options.slots,
    )
    loop = asyncio.get_running_loop()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    engines = []
    for _ in range(options.engines):
        events = None
        publisher = ""
        if options.events:
            sock = context.socket(zmq.PUB)
            sock.set_hwm(100_000)
            port = sock.bind_to_random_port("tcp://127.0.0.1", 20_000, 29_999)
            events = Events(sock, model.block_tokens)
            publisher = f"tcp://127.0.0.1:{port}"
        sock_http = bound_socket("127.0.0.1", 0)
        engine = Engine(model, events)
        await loop.create_server(functools.partial(Server, engine), sock=sock_http, backlog=1024)
        engines.append((engine, name_of(sock_http), publisher))
    return engines


def announce(engines: list[tuple[Engine, str, str]]) -> None:
    """Tells who started this where they are: HOST:PORT or HOST:PORT=PUBLISHER of each."""
    said = [f"{address}={publisher}" if publisher else address for _, address, publisher in engines]
    sys.stdout.write(" ".join(said) + "\n")
    sys.stdout.flush()


def arguments() -> argparse.ArgumentParser:
    """What engines are like."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--base-s", type=float, default=0.002)
    parser.add_argument("--token-s", type=float, default=40e-6)
    parser.add_argument("--step-s", type=float, default=0.04)
    parser.add_argument("--blocks", type=int, default=2_000)
    parser.add_argument("--block-tokens", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--events", action="store_true")
    return parser


async def _serve() -> None:
    announce(await listening(arguments().parse_args()))
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
