"""The client over real sockets: kept connections, cuts, refusals, silence, TLS, and a full play."""

import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from gevent.server import StreamServer
from gevent.socket import socket
from gevent.ssl import SSLContext

from loadtest.connections import Connections
from loadtest.engine import Limits
from loadtest.load import LoadSpec, read_load
from loadtest.local import LocalPlayer
from loadtest.meter import Part, Span
from loadtest.phase import Phase
from loadtest.play import Play
from loadtest.record import Record
from loadtest.result import Slo
from loadtest.shapes import soak
from loadtest.stream import StreamReader
from loadtest.target import Target, target_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b'data: {"choices":[{"delta":{"reasoning_content":"a"},"finish_reason":null}]}\n\n'
ANSWER = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
END = (
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,'
    b'"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":2}}}\n\n'
    b"data: [DONE]\n\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = HEAD + chunk(PIECE) + chunk(PIECE) + chunk(ANSWER + ANSWER) + chunk(END) + chunk(b"")
Talk = Callable[[socket, int], bool | None]  # false: the connection ends


class Scripted:
    """A server that does as its script says, for each request."""

    def __init__(self, talk: Talk, **tls: object) -> None:
        self.connections = 0
        self.requests = 0
        self._talk = talk
        self.server = StreamServer(("127.0.0.1", 0), self._serve, **tls)

    def _serve(self, sock: socket, address: object) -> None:
        self.connections += 1
        number = 0
        while True:
            data = b""
            while b"\r\n\r\n" not in data or not data.endswith(b"}"):
                got = sock.recv(1 << 16)
                if not got:
                    return
                data += got
            self.requests += 1
            if self._talk(sock, number) is False:
                return
            number += 1


@contextmanager
def serving(talk: Talk, **tls: object) -> Iterator[tuple[Scripted, Target]]:
    scripted = Scripted(talk, **tls)
    scripted.server.start()
    try:
        yield scripted, target_of(f"http://127.0.0.1:{scripted.server.server_port}/v1")
    finally:
        scripted.server.stop(0)


def asked(target: Target, times: int = 1, wait_s: float = 5.0) -> list[StreamReader]:
    """Readers of requests one after another."""
    connections = Connections(target, time.monotonic)
    readers = []
    for _ in range(times):
        reader = StreamReader(Record(Part(0.0, 1.0), time.monotonic()))
        done = Event()
        give_up = connections.send(b'{"a":1}', reader, done.set)
        if not done.wait(wait_s):
            give_up()
        readers.append(reader)
        gevent.sleep(0.01)
    connections.close()
    return readers


def whole(sock: socket, number: int) -> None:
    sock.sendall(WHOLE)


def test_a_connection_serves_one_request_after_another() -> None:
    with serving(whole) as (server, target):
        readers = asked(target, 5)
    assert [reader.error for reader in readers] == [""] * 5
    assert (server.connections, server.requests) == (1, 5)


def test_a_connection_that_the_server_closed_meanwhile_is_no_error() -> None:
    def once(sock: socket, number: int) -> bool:
        sock.sendall(WHOLE)
        return False

    with serving(once) as (server, target):
        readers = asked(target, 3)
    assert [reader.error for reader in readers] == [""] * 3
    assert server.connections == 3


def test_a_cut_in_the_stream_is_one() -> None:
    def cut(sock: socket, number: int) -> bool:
        sock.sendall(HEAD + chunk(PIECE))
        return False

    with serving(cut) as (_, target):
        assert [reader.error for reader in asked(target)] == ["cut"]


def test_a_refusal_is_one_by_its_status_and_the_connection_lives_on() -> None:
    body = b'{"error":{"message":"Rate limit reached"}}'

    def refuse(sock: socket, number: int) -> None:
        head = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)

    with serving(refuse) as (server, target):
        readers = asked(target, 2)
    assert [reader.error for reader in readers] == ["http_429"] * 2
    assert "Rate limit" in readers[0].message
    assert server.connections == 1


def test_nobody_there_is_no_connection() -> None:
    with serving(whole) as (_, target):
        pass
    assert [reader.error for reader in asked(target)] == ["connection"]


def test_silence_is_a_timeout_of_a_play_and_counts_from_when_it_was_due() -> None:
    def silent(sock: socket, number: int) -> None:
        gevent.sleep(60)

    with serving(silent) as (_, target):
        load = read_load(LoadSpec("input=20,output=4", "", None, None, 1, "s", "m"))
        play = Play(soak(20.0, 1.0), [Span(0.0, 1.0, 20.0)], Limits(0.7, 5.0), Slo(1.0, 1.0))
        player = LocalPlayer(target, load)
        played = player.play(play)
        player.close()
    (window,) = played.windows
    assert window.due > 5
    assert window.errors == {"timeout": window.due}


def test_a_play_measures_phases_and_tokens() -> None:
    def paced(sock: socket, number: int) -> None:
        sock.sendall(HEAD)
        for piece in (PIECE, PIECE, ANSWER, ANSWER, END, b""):
            sock.sendall(chunk(piece))
            gevent.sleep(0.01)

    with serving(paced) as (server, target):
        load = read_load(LoadSpec("input=20,output=4", "", None, None, 1, "s", "m"))
        play = Play(soak(40.0, 2.0), [Span(0.5, 2.0, 40.0)], Limits(9.0, 9.0), Slo(5.0, 5.0))
        player = LocalPlayer(target, load)
        played = player.play(play)
        player.close()
    (window,) = played.windows
    assert window.due == window.ended == window.good > 20
    assert played.sent > window.due
    assert (window.tokens.thinking, window.tokens.answer) == (2 * window.due, 2 * window.due)
    assert {latency.value: counts.count for latency, counts in window.latencies.items()} == {
        "ttft": window.due, "first_answer": window.due, "e2e": window.due,
        "itl_thinking": window.due, "itl_answer": window.due,
        "tpot_thinking": window.due, "tpot_answer": window.due,
    }  # fmt: skip
    assert window.lag.count > 50
    assert server.connections < server.requests


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


def test_streams_over_tls_are_the_same(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate

    def paced(sock: socket, number: int) -> None:
        for piece in (HEAD, chunk(PIECE), chunk(ANSWER), chunk(END), chunk(b"")):
            sock.sendall(piece)
            gevent.sleep(0.005)

    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with serving(paced, ssl_context=context) as (server, target):
        port = target.port
        trusted = target_of(f"https://localhost:{port}/v1", ca=cert)
        readers = asked(trusted, 3)
        untrusted = asked(target_of(f"https://localhost:{port}/v1"))
        insecure = asked(target_of(f"https://127.0.0.1:{port}/v1", insecure=True))
        assert isinstance(trusted.tls, ssl.SSLContext)
    assert [reader.error for reader in readers] == [""] * 3
    assert [reader.error for reader in untrusted] == ["connection"]
    assert [reader.error for reader in insecure] == [""]
    assert server.requests == 4


class Listening:
    """Remembers when pieces came."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Phase, float]] = []

    def piece(self, phase: Phase, now: float) -> None:
        self.pieces.append((phase, now))


def test_pieces_are_told_when_they_come_and_not_at_the_end() -> None:
    def paced(sock: socket, number: int) -> None:
        sock.sendall(HEAD)
        for piece in (PIECE, ANSWER, END, b""):
            sock.sendall(chunk(piece))
            gevent.sleep(0.2)

    with serving(paced) as (_, target):
        connections = Connections(target, time.monotonic)
        listening, done = Listening(), Event()
        connections.send(b'{"a":1}', StreamReader(listening), done.set)
        done.wait(5.0)
        connections.close()
    (_, first_at), (_, second_at) = listening.pieces
    assert second_at > first_at
