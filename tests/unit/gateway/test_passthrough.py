"""Requests pass through to engines' own servers, and their failures with them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from orchestrator.engines.channel.sockets import bound_socket, name_of
from orchestrator.gateway import Passthrough, ProxyLimits
from orchestrator.routing import DEFAULT_COSTS
from orchestrator.telemetry import open_log
from tests.gateway_stack import until

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHAT = "/v1/chat/completions"
LONG = "Once upon a midnight dreary, while I pondered, weak and weary. " * 200


def event(number: int, padding: int = 0) -> bytes:
    data = b'data: {"number":%d}%b\n\n' % (number, b" " * padding)
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Engine:
    """Streams so many events with a pause between them, and may break off."""

    events: int = 5
    pause_s: float = 0.0
    padding: int = 0  # bytes of each event
    break_at: int | None = None
    mute: bool = False  # closes the connection instead of answering
    once: bool = False  # closes it at its second request
    requests: list[bytes] = field(default_factory=list)
    sent: int = 0
    open: int = 0
    left: int = 0
    tasks: list[asyncio.Task[None] | None] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        answered = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if answered and self.once:
                    raise ConnectionResetError
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                body = await reader.readexactly(int(length or b"0"))
                if head.startswith(b"GET /metrics"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                elif head.startswith(b"GET "):
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope")
                else:
                    self.requests.append(head + body)
                    await self._stream(writer)
                    answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        if self.mute:
            raise ConnectionResetError
        self.open += 1
        try:
            writer.write(STREAM)
            for number in range(self.events):
                if number == self.break_at:
                    raise ConnectionResetError
                writer.write(event(number, self.padding))
                await writer.drain()
                self.sent += 1
                await asyncio.sleep(self.pause_s)
            writer.write(b"0\r\n\r\n")
        except ConnectionError:
            self.left += 1
            raise
        finally:
            self.open -= 1


@asynccontextmanager
async def listening(engine: Engine, port: int = 0) -> AsyncIterator[str]:
    server = await asyncio.start_server(engine, "127.0.0.1", port)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    await server.wait_closed()
    await asyncio.gather(*(task for task in engine.tasks if task is not None))


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@asynccontextmanager
async def gateway(logs: Path, *engines: Engine, dead: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway in front of them, and of so many that do not answer."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(listening(engine)) for engine in engines]
        unused = [bound_socket("127.0.0.1", 0) for _ in range(dead)]
        log = open_log("test", logs / "log")
        app = Passthrough(
            [*map(name_of, unused), *servers], DEFAULT_COSTS, ProxyLimits(stall_s=5.0), log
        )
        sock = bound_socket("127.0.0.1", 0)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(app.serve(sock))
            async with httpx.AsyncClient(base_url=f"http://{name_of(sock)}", timeout=10) as client:
                await until(lambda: listens(sock))
                yield client
            app.stop()
            await serving
        log.close()
        for each in unused:
            each.close()


def body_of(text: str) -> dict[str, object]:
    return {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}


async def test_what_the_engine_sends_is_what_the_client_gets(tmp_path: Path) -> None:
    engine = Engine(events=50)
    async with gateway(tmp_path, engine) as client:
        for _ in range(2):
            answer = await client.post(CHAT, json=body_of("Hi"), headers={"x-mine": "1"})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.text == "".join(f'data: {{"number":{at}}}\n\n' for at in range(50))
    sent = engine.requests[0]
    assert sent.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"x-mine: 1\r\n" in sent
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == body_of("Hi")


async def test_other_paths_and_errors_are_the_engines_own(tmp_path: Path) -> None:
    async with gateway(tmp_path, Engine()) as client:
        answer = await client.get("/v1/models?x=1")
        assert (answer.status_code, answer.text) == (404, "nope")


async def test_an_engine_that_does_not_answer_costs_no_request(tmp_path: Path) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine, dead=2) as client:
        health = (await client.get("/health")).json()
        assert health == {"ready": True, "engines": 3, "reached": 1}
        assert (await client.post(CHAT, json=body_of("Hi"))).status_code == 200


async def test_without_any_engine_the_answer_says_so(tmp_path: Path) -> None:
    async with gateway(tmp_path, dead=1) as client:
        answer = await client.post(CHAT, json=body_of("Hi"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["type"] == "service_unavailable_error"
        assert (await client.get("/health")).status_code == 503


async def test_a_request_whose_engine_breaks_off_before_its_answer_goes_to_another(
    tmp_path: Path,
) -> None:
    engines = [Engine(mute=True), Engine(mute=True), Engine()]
    async with gateway(tmp_path, *engines) as client:
        for _ in range(3):
            assert (await client.post(CHAT, json=body_of("Hi"))).status_code == 200
    assert len(engines[2].requests) == 3


async def test_an_engine_that_was_closing_the_connection_is_asked_again(tmp_path: Path) -> None:
    engine = Engine(once=True)
    async with gateway(tmp_path, engine) as client:
        for _ in range(4):
            assert (await client.post(CHAT, json=body_of("Hi"))).status_code == 200
        assert (await client.get("/health")).json()["reached"] == 1
    assert len(engine.requests) == 4


async def test_an_engine_that_breaks_off_before_its_first_token_costs_nothing(
    tmp_path: Path,
) -> None:
    engines = [Engine(break_at=0), Engine()]
    async with gateway(tmp_path, *engines) as client:
        for _ in range(2):
            answer = await client.post(CHAT, json=body_of("Hi"))
            assert answer.status_code == 200
            assert answer.text.count("data: ") == 5


async def test_a_client_that_does_not_read_holds_up_its_engine_and_nobody_else(
    tmp_path: Path,
) -> None:
    engine = Engine(events=10_000, padding=10_000)
    async with gateway(tmp_path, engine) as client:
        url = client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=1_000)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        await reader.readline()
        before = -1
        while engine.sent != before:
            before = engine.sent
            await asyncio.sleep(0.2)
        assert 0 < engine.sent < engine.events
        assert (await client.get("/v1/models")).status_code == 404
        writer.transport.abort()
        await until(lambda: engine.open == 0)


async def test_a_stream_that_runs_ends_whole_after_the_gateway_is_told_to_stop(
    tmp_path: Path,
) -> None:
    log = open_log("test", tmp_path / "log")
    async with listening(Engine(events=50, pause_s=0.005)) as server:
        app = Passthrough([server], DEFAULT_COSTS, ProxyLimits(), log)
        sock = bound_socket("127.0.0.1", 0)
        url = f"http://{name_of(sock)}"
        async with asyncio.TaskGroup() as group, httpx.AsyncClient(base_url=url) as client:
            serving = group.create_task(app.serve(sock))
            await until(lambda: listens(sock))
            async with client.stream("POST", CHAT, json=body_of("Hi")) as answer:
                app.stop()
                text = "".join([part async for part in answer.aiter_text()])
            assert text.count("data: ") == 50
            await serving
            with pytest.raises(httpx.ConnectError):
                await client.get("/health")
    log.close()


async def test_an_answer_that_breaks_off_is_no_whole_answer(tmp_path: Path) -> None:
    async with gateway(tmp_path, Engine(events=50, pause_s=0.002, break_at=20)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, json=body_of("Hi"))


async def test_a_client_that_leaves_frees_the_engine(tmp_path: Path) -> None:
    engine = Engine(events=10_000, pause_s=0.002)
    async with gateway(tmp_path, engine) as client:
        async with client.stream("POST", CHAT, json=body_of("Hi")) as answer:
            await anext(answer.aiter_bytes())
            assert engine.open == 1
        await until(lambda: engine.open == 0)
    assert engine.left == 1


async def test_a_reference_to_kv_is_not_a_clients_to_set(tmp_path: Path) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine) as client:
        body = body_of("Hi") | {"kv_transfer_params": {"do_remote_prefill": True}}
        answer = await client.post(CHAT, json=body)
        assert answer.status_code == 400
        assert "kv_transfer_params" in answer.json()["error"]["message"]
    assert engine.requests == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"messages": 7}', b'{"max_tokens": "many"}'])
async def test_what_a_request_asks_the_engine_judges(tmp_path: Path, body: bytes) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine) as client:
        assert (await client.post(CHAT, content=body)).status_code == 200
    assert engine.requests[0].endswith(b"\r\n\r\n" + body)


HIDDEN = b'{"x": NaN, "kv_transfer_params": {}}'  # json.loads reads it


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 5_000, b"[]", b'"text"', HIDDEN])
async def test_what_is_no_json_object_never_reaches_an_engine(tmp_path: Path, body: bytes) -> None:
    engine = Engine()
    async with gateway(tmp_path, engine) as client:
        answer = await client.post(CHAT, content=body)
        assert answer.status_code == 400
        assert "JSON" in answer.json()["error"]["message"]
    assert engine.requests == []


async def test_a_prompt_goes_where_its_beginning_has_been(tmp_path: Path) -> None:
    engines = [Engine(), Engine(), Engine()]
    async with gateway(tmp_path, *engines) as client:
        for turn in range(6):
            await client.post(CHAT, json=body_of(f"{LONG}{turn}"))
        assert sorted(len(engine.requests) for engine in engines) == [0, 0, 6]
        for turn in range(6):
            await client.post(CHAT, json=body_of(f"{turn}{LONG}"))
    assert all(len(engine.requests) >= 2 for engine in engines)
