"""Engines as HTTP servers that cost little: `python -m tests.bench.http_engines ENGINES TOKENS S`.

Each streams as `vllm serve` does, one chunk a token: TOKENS chunks, S seconds apart, or all at
once if that is 0. Raw protocol, so that what is in front of them is what is measured.
"""

import asyncio
import functools
import socket
import sys
from typing import cast

import uvloop
from typing_extensions import override

from orchestrator.engines.channel.sockets import bound_socket, name_of

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-00000000000000000000000000000000","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"mock","choices":[{"index":0,"delta":{"content":" word"},'
    b'"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
DONE = b"data: [DONE]\n\n"
END = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)


class _Server(asyncio.Protocol):
    def __init__(self, engine: "_Engine") -> None:
        self._engine = engine
        self._held = b""
        self.left = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @override
    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or b"0"):
            return
        self._held = b""
        self._engine.begin(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.running.pop(self, None)


class _Engine:
    def __init__(self, tokens: int, step_s: float) -> None:
        self._tokens = tokens
        self._step_s = step_s
        self._next_at = 0.0
        self.running: dict[_Server, None] = {}

    def begin(self, server: _Server) -> None:
        if not self._step_s:
            server.transport.write(HEAD)
            loop = asyncio.get_running_loop()
            server.left = self._tokens
            loop.call_soon(self._burst, server)
            return
        server.transport.write(HEAD)
        server.left = self._tokens
        self.running[server] = None
        if len(self.running) == 1:
            loop = asyncio.get_running_loop()
            self._next_at = loop.time() + self._step_s
            loop.call_at(self._next_at, self._step)

    def _burst(self, server: _Server) -> None:
        """One chunk a turn of the loop, so that each is a write of its own."""
        server.left -= 1
        if server.left >= 0:
            server.transport.write(CHUNK)
            asyncio.get_running_loop().call_soon(self._burst, server)
        else:
            server.transport.write(END)

    def _step(self) -> None:
        for server in list(self.running):
            server.left -= 1
            if server.left > 0:
                server.transport.write(CHUNK)
            else:
                server.transport.write(CHUNK + END)
                del self.running[server]
        if self.running:
            self._next_at += self._step_s
            asyncio.get_running_loop().call_at(self._next_at, self._step)


async def _serve(engines: int, tokens: int, step_s: float) -> None:
    loop = asyncio.get_running_loop()
    addresses = []
    for _ in range(engines):
        engine = _Engine(tokens, step_s)
        sock = bound_socket("127.0.0.1", 0)
        await loop.create_server(functools.partial(_Server, engine), sock=sock)
        addresses.append(name_of(sock))
    sys.stdout.write(" ".join(addresses) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
