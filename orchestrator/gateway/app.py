"""The gateway's HTTP routes."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.codec import Tokenizer
from orchestrator.gateway.chat import Chat
from orchestrator.gateway.chat_request import ChatLimits
from orchestrator.gateway.errors import ApiError, error_body
from orchestrator.gateway.service import Service
from orchestrator.gateway.wire import models_body


def build_app(service: Service, tokenizer: Tokenizer, on_start: Callable[[], None]) -> Starlette:
    """The application; its lifespan starts and stops the service, `on_start` runs in between.

    Every path of the API answers with and without `/v1`, which DeepSeek says is no version.
    """
    chat = Chat(service, tokenizer, _limits(service), _fingerprint(service))
    created = int(datetime.now(UTC).timestamp())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        on_start()
        yield
        await service.stop()

    async def models(_: Request) -> Response:
        body = models_body([service.spec.model.name], created)
        return Response(body, media_type="application/json")

    async def health(_: Request) -> Response:
        """200 if a request that came now could be served, 503 with what is missing otherwise."""
        ready = service.ready()
        state = {"ready": ready, "ranks": service.ranks_by_role()}
        return JSONResponse(state, status_code=200 if ready else 503)

    async def exposition(_: Request) -> Response:
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/metrics", exposition)]
    for prefix in ("", "/v1"):
        routes.append(Route(f"{prefix}/chat/completions", chat, methods=["POST"]))
        routes.append(Route(f"{prefix}/models", models))
    return Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error}
    )


async def _http_error(_: Request, error: Exception) -> Response:
    """Starlette's own errors, such as an unknown path, in the shape of all others."""
    assert isinstance(error, HTTPException)
    body = error_body(ApiError(error.status_code, error.detail))
    return Response(body, error.status_code, media_type="application/json")


def _limits(service: Service) -> ChatLimits:
    """DeepSeek's limits, lowered to what a model with a shorter context can hold."""
    context = service.spec.model.max_model_len
    official = ChatLimits()
    return ChatLimits(
        context,
        min(official.max_tokens_default, context // 2),
        min(official.max_tokens_max, context),
    )


def _fingerprint(service: Service) -> str:
    model = service.spec.model
    digest = hashlib.sha256(f"{model.path}\n{service.spec.engine.dtype}".encode()).hexdigest()
    return f"fp_{digest[:10]}"
