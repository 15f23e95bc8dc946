"""A small API as a process of its own: paced streams, a key, one model, and stalls on request.

`python -m tests.loadtest.paced_server` prints its port when it listens. Each line of its standard
input is answered with the number of completions that were asked for; `stall SECONDS` also makes it
silent for so long.
"""

import argparse
import asyncio
import json
import sys
import time

from typing_extensions import override

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _piece(key: str) -> bytes:
    delta = {"role": "assistant", key: " word"}
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return _chunk(b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode())


THOUGHT, ANSWER = _piece("reasoning_content"), _piece("content")


class Api:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.completions = 0
        self.silent_until = 0.0

    async def pace(self, seconds: float) -> None:
        """Waits, and for the end of a stall."""
        await asyncio.sleep(seconds)
        while (left_s := self.silent_until - time.monotonic()) > 0:
            await asyncio.sleep(left_s)


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, api: Api, group: asyncio.TaskGroup) -> None:
        self._api = api
        self._group = group
        self._data = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        if len(body) < int(headers.get("content-length", 0)):
            return
        self._data = b""
        key = self._api.options.key
        if key and headers.get("authorization") != f"bearer {key}":
            self._json(401, {"error": {"message": "Authentication Fails"}})
        elif "/models" in lines[0]:
            self._json(200, {"data": [{"id": "deepseek-reasoner"}]})
        else:
            self._api.completions += 1
            asked = json.loads(body)
            words = sum(len(str(each["content"]).split()) for each in asked["messages"])
            self._group.create_task(self._stream(asked["max_tokens"], words + 5))

    def _json(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        end = b"Connection: close\r\n\r\n"
        self._transport.write(head % (status, len(body)) + end + body)
        self._transport.close()

    async def _stream(self, tokens: int, prompt_tokens: int) -> None:
        write, options = self._transport.write, self._api.options
        await self._api.pace(options.first_s)
        write(HEAD)
        thoughts = tokens // 2
        for number in range(tokens):
            if self._transport.is_closing():
                return
            write(THOUGHT if number < thoughts else ANSWER)
            await self._api.pace(options.step_s)
        end = {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": tokens,
                "completion_tokens_details": {"reasoning_tokens": thoughts},
            },
        }
        write(_chunk(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(end).encode()) + _chunk(b""))


async def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", default="")
    parser.add_argument("--first-s", type=float, default=0.02)
    parser.add_argument("--step-s", type=float, default=0.02)
    api = Api(parser.parse_args())
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        server = await loop.create_server(lambda: Session(api, group), "127.0.0.1", 0, backlog=1024)
        _say(server.sockets[0].getsockname()[1])
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.startswith("stall"):
                api.silent_until = time.monotonic() + float(line.split()[1])
            _say(api.completions)
        server.close()


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
