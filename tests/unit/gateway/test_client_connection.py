"""What a client may send, and what it then reads; the connection is a fake one."""

import asyncio
from collections.abc import Callable
from math import inf

import pytest
from typing_extensions import override

from orchestrator.gateway.client_connection import (
    HEAD_S,
    IDLE_S,
    ClientConnection,
    Clients,
    Flow,
)
from orchestrator.gateway.http import BODY_S
from orchestrator.gateway.request_reader import HEAD_BYTES_MAX, Request

GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
STALL_S = 10.0
BODY_MAX = 1_000


def post(body: bytes, *lines: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    return b"POST /v1/chat HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Socket:
    """What the kernel has."""

    def setsockopt(self, *_: int) -> None: ...


class Transport(asyncio.Transport):
    """Notes what is written; tells the protocol of its end as a loop would, later."""

    def __init__(self, lost: Callable[[Exception | None], None]) -> None:
        super().__init__({"socket": Socket()})
        self._lost = lost
        self.written = bytearray()
        self.waiting_bytes = 0
        self.reading = True
        self.aborted = False
        self._closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing
        self.written += data

    @override
    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.waiting_bytes:
                asyncio.get_running_loop().call_soon(self._lost, None)

    @override
    def abort(self) -> None:
        self.aborted = True
        self.waiting_bytes = 0
        self._closing = False
        self.close()

    @override
    def pause_reading(self) -> None:
        self.reading = False

    @override
    def resume_reading(self) -> None:
        self.reading = True


class Noted(Flow):
    """A flow that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @override
    def on_gone(self) -> None:
        self.told.append("gone")

    @override
    def on_slow(self) -> None:
        self.told.append("slow")

    @override
    def on_ready(self) -> None:
        self.told.append("ready")


class World:
    """One connection, and the requests that came out of it; answered at once unless `later`."""

    def __init__(self, *, later: bool = False) -> None:
        self.requests: list[Request] = []
        self.flow = Noted()
        self._later = later
        self.clients = Clients(self._on_request, STALL_S, BODY_MAX, {})
        self.client = ClientConnection(self.clients)
        self.transport = Transport(self.client.connection_lost)
        self.client.connection_made(self.transport)

    def _on_request(self, client: ClientConnection, request: Request) -> None:
        self.requests.append(request)
        if self._later:
            client.flow = self.flow
        else:
            client.answer(200, b"whole")

    async def send(self, data: bytes) -> bytes:
        """What is written from now until all is quiet."""
        del self.transport.written[:]
        self.client.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)
        return bytes(self.transport.written)

    async def wait(self, seconds: float) -> None:
        self.clients.expire(asyncio.get_running_loop().time() + seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def closed(self) -> bool:
        return not self.clients.open


async def test_a_request_is_whole_and_without_what_is_the_connections_own() -> None:
    world = World()
    data = post(b"body", b"Host: x", b"X-Mine: 1", b"connection: keep-alive, x-hop", b"x-hop: 2")
    assert (await world.send(data)).startswith(b"HTTP/1.1 200 OK\r\n")
    (request,) = world.requests
    assert (request.method, request.target, request.body) == (b"POST", b"/v1/chat", b"body")
    assert list(request.headers) == [(b"x-mine", b"1")]
    assert not world.closed


async def test_bytes_may_come_one_by_one() -> None:
    world = World()
    for byte in post(b"body", b"x-mine: 1"):
        await world.send(bytes((byte,)))
    assert world.requests[0].body == b"body"


async def test_requests_behind_one_another_are_answered_in_their_order() -> None:
    world = World(later=True)
    await world.send(post(b"1") + post(b"2") + post(b"3"))
    assert [request.body for request in world.requests] == [b"1"]
    assert not world.transport.reading
    for number in (b"1", b"2", b"3"):
        world.client.start(200, ())
        world.client.end(number)
        await asyncio.sleep(0)
    assert [request.body for request in world.requests] == [b"1", b"2", b"3"]
    assert world.transport.reading
    written = bytes(world.transport.written)
    assert (
        written.index(b"\r\n1\r\n0") < written.index(b"\r\n2\r\n0") < written.index(b"\r\n3\r\n0")
    )


async def test_thousands_of_requests_in_one_packet_are_all_answered() -> None:
    world = World()
    await world.send(GET * 3_000)
    for _ in range(3_000):
        await asyncio.sleep(0)
    assert len(world.requests) == 3_000


@pytest.mark.parametrize(
    "lines",
    [
        (b"content-length: 4", b"transfer-encoding: chunked"),
        (b"transfer-encoding: chunked", b"content-length: 4"),
        (b"content-length: 4", b"content-length: 5"),
        (b"content-length: 4, 4",),
        (b"content-length: +4",),
        (b"content-length: 0x4",),
        (b"transfer-encoding: xchunked",),
        (b"transfer-encoding: chunked, identity",),
        (b"transfer-encoding: identity, chunked",),
        (b"transfer-encoding : chunked",),
        (b"content-length : 4",),
        (b"content-length: 4\nx: y",),
        (b"x: a\0b",),
        (b"x: a\rb",),
        (b"no colon",),
    ],
)
async def test_what_two_servers_could_read_in_two_ways_is_refused(lines: tuple[bytes, ...]) -> None:
    world = World()
    head = b"POST /v1/chat HTTP/1.1\r\nhost: x\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"
    answer = await world.send(head + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")
    assert world.requests == []
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in answer
    assert world.closed


async def test_a_folded_header_brings_no_line_of_its_own() -> None:
    world = World()
    assert await world.send(b"GET / HTTP/1.1\r\nx-a: 1\r\n x-b: 2\r\n\r\n")
    for request in world.requests:
        assert all(b"\r" not in value and b"\n" not in value for _, value in request.headers)


async def test_a_chunked_body_is_put_together_and_its_trailer_is_no_header() -> None:
    world = World()
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    await world.send(head + b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-late: 1\r\n\r\n")
    (request,) = world.requests
    assert (request.body, list(request.headers)) == (b"abcde", [])


async def test_http_1_0_has_no_chunks_and_ends_with_its_connection() -> None:
    world = World(later=True)
    await world.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    world.client.start(200, ((b"content-type", b"text/plain"),))
    world.client.write(b"one")
    world.client.end(b"two")
    head, _, body = bytes(world.transport.written).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"onetwo"
    await asyncio.sleep(0)
    assert world.closed
    refused = World()
    await refused.send(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert refused.requests == []


async def test_an_answer_with_a_length_keeps_it() -> None:
    world = World(later=True)
    await world.send(GET)
    headers = ((b"content-length", b"4"), (b"transfer-encoding", b"x"), (b"connection", b"close"))
    world.client.start(404, headers)
    world.client.end(b"nope")
    expected = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope"
    assert bytes(world.transport.written) == expected


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_an_answer_that_has_no_body_gets_none(method: bytes, status: int) -> None:
    world = World(later=True)
    await world.send(method + GET[3:])
    world.client.start(status, ((b"x", b"y"),))
    world.client.end(b"")
    written = bytes(world.transport.written)
    assert written.endswith(b"\r\nx: y\r\n\r\n")
    assert b"chunked" not in written
    assert not world.closed


async def test_connection_close_is_obeyed_and_nothing_behind_it_is_read() -> None:
    world = World()
    answer = await world.send(GET[:-2] + b"connection: close\r\n\r\n" + GET)
    assert b"connection: close\r\n" in answer
    assert len(world.requests) == 1
    assert world.closed


async def test_a_body_that_is_held_back_is_asked_for() -> None:
    world = World()
    data = post(b"body", b"expect: 100-continue")
    assert await world.send(data[:-4]) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b" 200 OK" in await world.send(data[-4:])
    assert b"100" not in await world.send(data)  # it was not held back


async def test_a_body_is_not_asked_for_in_the_middle_of_another_answer() -> None:
    world = World(later=True)
    await world.send(GET)
    world.client.start(200, ())
    world.client.write(b"half")
    assert await world.send(post(b"body", b"expect: 100-continue")[:-4]) == b""
    world.client.end(b"rest")
    assert bytes(world.transport.written).endswith(b"0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")


async def test_a_body_too_large_is_refused_before_it_is_asked_for() -> None:
    world = World()
    head = post(b"x" * (BODY_MAX + 1), b"expect: 100-continue").partition(b"\r\n\r\n")[0]
    answer = await world.send(head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert world.closed


async def test_the_sender_of_a_body_too_large_hears_of_it_and_its_bytes_are_not_kept() -> None:
    world = World()
    answer = await world.send(post(b"x" * (2 * BODY_MAX)))
    assert b"larger than 1000 bytes" in answer
    endless = World()
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await endless.send(head)
    for _ in range(20):
        if endless.closed:
            break
        answer = await endless.send(b"1f4\r\n" + b"x" * 500 + b"\r\n")
    assert b"larger than 1000 bytes" in answer
    assert endless.closed
    assert world.requests == endless.requests == []


async def test_a_head_without_end_is_refused() -> None:
    world = World()
    answer = await world.send(b"GET / HTTP/1.1\r\nx: ")
    for _ in range(HEAD_BYTES_MAX // 1_000 + 1):
        answer = await world.send(b"x" * 1_000)
        if answer:
            break
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert world.closed


async def test_a_head_behind_a_long_body_is_not_counted_with_it() -> None:
    world = World()
    await world.send(post(b"x" * BODY_MAX) * (2 * HEAD_BYTES_MAX // BODY_MAX) + GET[:10])
    for _ in range(2 * HEAD_BYTES_MAX // BODY_MAX):
        await asyncio.sleep(0)
    assert b"431" not in world.transport.written
    await world.send(GET[10:])
    assert world.requests[-1].target == b"/v1/models"


@pytest.mark.parametrize(
    ("begun", "seconds", "answer"),
    [
        (b"", IDLE_S, b""),
        (b"GET / HT", HEAD_S, b"HTTP/1.1 408 "),
        (post(b"body")[:-1], BODY_S, b"HTTP/1.1 408 "),
        (GET, IDLE_S, b"HTTP/1.1 200 "),
    ],
)
async def test_who_is_too_slow_is_not_waited_for(
    begun: bytes, seconds: float, answer: bytes
) -> None:
    world = World()
    await world.send(begun)
    await world.wait(seconds - 1)
    assert not world.closed
    await world.wait(seconds + 1)
    assert bytes(world.transport.written).startswith(answer)
    assert world.closed


async def test_an_answer_may_take_any_time() -> None:
    world = World(later=True)
    await world.send(GET)
    assert world.client.due_at == inf


async def test_a_client_that_does_not_read_is_cut_and_a_slow_one_is_not() -> None:
    world = World(later=True)
    await world.send(GET)
    world.client.start(200, ())
    world.transport.waiting_bytes = 100
    world.client.pause_writing()
    world.transport.waiting_bytes = 90
    await world.wait(STALL_S + 1)
    assert not world.closed
    await world.wait(3 * STALL_S)
    assert world.transport.aborted
    assert world.flow.told == ["slow", "gone"]


async def test_a_client_that_reads_again_is_not_cut() -> None:
    world = World(later=True)
    await world.send(GET)
    world.client.pause_writing()
    world.client.resume_writing()
    await world.wait(10 * STALL_S)
    assert world.flow.told == ["slow", "ready"]


async def test_a_client_that_does_not_read_the_end_is_cut_too() -> None:
    world = World()
    world.transport.waiting_bytes = 100
    await world.send(GET[:-2] + b"connection: close\r\n\r\n")
    assert not world.closed
    await world.wait(STALL_S + 1)
    assert world.transport.aborted
    assert world.closed


async def test_a_drain_ends_idle_connections_at_once_and_others_with_their_answer() -> None:
    idle, busy, half = World(), World(later=True), World()
    await busy.send(GET)
    await half.send(GET[:20])
    for world in (idle, busy, half):
        world.client.drain()
    assert b"connection: close" in await half.send(GET[20:])
    assert idle.closed
    assert half.closed
    assert not busy.closed
    busy.client.start(200, ())
    busy.client.end(b"rest")
    await asyncio.sleep(0)
    assert b"connection: close" in busy.transport.written
    assert busy.closed


async def test_an_upgrade_is_not_taken_up() -> None:
    world = World()
    upgrade = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: x")
    lines = b"\r\n".join(upgrade)
    answer = await world.send(GET[:-2] + lines + b"\r\n\r\n" + GET)
    assert answer.count(b" 200 OK") == 2
    assert [list(request.headers) for request in world.requests] == [[], []]
    # Java's HTTP client asks so by default
    both = post(b"body", *upgrade) + post(b"more")
    for byte in both:
        await world.send(bytes((byte,)))
    await world.send(both)
    bodies = [request.body for request in world.requests[2:]]
    assert bodies == [b"body", b"more", b"body", b"more"]
    assert b" 400 " in await world.send(
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + lines + b"\r\n\r\n0\r\n\r\n"
    )
    assert b" 501 " in await World().send(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        (b"http://host:1/a/b?c=d", b"/a/b?c=d"),
        (b"http://host", b"/"),
        (b"/a%20b?", b"/a%20b?"),
        (b"*", b"*"),
    ],
)
async def test_a_target_is_a_path(sent: bytes, target: bytes) -> None:
    world = World()
    await world.send(b"OPTIONS " + sent + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert world.requests[0].target == target


@pytest.mark.parametrize(
    "data", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\0", b"SSH-2"]
)
async def test_another_protocol_is_refused(data: bytes) -> None:
    world = World()
    assert (await world.send(data)).startswith(b"HTTP/1.1 400 ")
    assert world.closed
