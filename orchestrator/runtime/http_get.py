"""One GET over HTTP/1, read to its end: all that telemetry asks of others."""

import asyncio

from orchestrator.engines.channel.sockets import split_address

BYTES_MAX = 64 << 20


class BadAnswer(Exception):
    """It was not 200, or no HTTP."""


async def get(address: str, target: str) -> bytes:
    """The body. Raises OSError, BadAnswer; the caller bounds its time."""
    reader, writer = await asyncio.open_connection(*split_address(address))
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        answer = await reader.read(BYTES_MAX)
        parts = [answer]
        while answer:
            answer = await reader.read(BYTES_MAX)
            parts.append(answer)
    finally:
        writer.close()
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or words[1] != b"200":
        raise BadAnswer(head[:200].decode(errors="replace"))
    return body
