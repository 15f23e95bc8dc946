"""What is read whole of an engine's server, beside generations."""

import asyncio

from typing_extensions import override

from orchestrator.core import EngineStartError
from orchestrator.engines.http.upstream import Exchange, Headers, Pool

ANSWER_S = 10.0


async def read(pool: Pool, path: str) -> bytes:
    """The body of a GET. Raises EngineStartError if there is none within ANSWER_S."""
    reading = _Reading()
    call = pool.ask(b"GET %b HTTP/1.1\r\nhost: engine\r\n\r\n" % path.encode(), reading)
    try:
        async with asyncio.timeout(ANSWER_S):
            await reading.done.wait()
    except TimeoutError:
        reading.cause = f"timeout after {ANSWER_S:g} s"
    finally:
        call.cut()  # one that has ended is not
    if reading.cause or reading.status != 200:
        raise EngineStartError(
            f"the server at {pool.address} does not answer GET {path}: "
            f"{reading.cause or reading.status}",
            "see that it runs, and that the --engine-url is its own",
        )
    return bytes(reading.body)


async def read_metrics(pool: Pool) -> bytes:
    """The engine's metrics. Raises EngineStartError."""
    return await read(pool, "/metrics")


class _Reading(Exchange):
    """An answer that is read whole."""

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.cause = ""
        self.done = asyncio.Event()

    @override
    def on_head(self, status: int, headers: Headers) -> None:
        self.status = status

    @override
    def on_body(self, data: bytes) -> None:
        self.body += data

    @override
    def on_end(self, data: bytes) -> None:
        self.body += data
        self.done.set()

    @override
    def on_lost(self, cause: str) -> None:
        self.cause = cause
        self.done.set()
