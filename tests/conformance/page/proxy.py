"""A proxy that adds a path prefix, as an operator may have before the gateway."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Proxy:
    """Forwards everything below `/r1/` to `target`, which does not know of the prefix."""

    target: str
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=20))

    async def forward(self, request: Request) -> Response:
        url = self.target + request.path_params["path"]
        headers = [
            (k, v) for k, v in request.headers.raw if k.lower() not in {b"host", b"connection"}
        ]
        asked = self.client.build_request(
            request.method, url, content=await request.body(), headers=headers
        )
        answer = await self.client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        kept = {"content-type", "content-security-policy", "etag", "cache-control"}
        passed = {k: v for k, v in answer.headers.items() if k in kept}
        return StreamingResponse(body(), answer.status_code, passed)


@contextmanager
def serve(app: Starlette) -> Iterator[str]:
    """Serves `app` from a thread of its own; yields its address, with a slash at the end."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


def proxy_app(target: str) -> Starlette:
    """`target` below `/r1/`."""
    proxy = Proxy(target)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with proxy.client:
            yield

    route = Route("/r1/{path:path}", proxy.forward, methods=["GET", "POST"])
    return Starlette(routes=[route], lifespan=lifespan)
