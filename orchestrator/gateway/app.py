"""The gateway's HTTP routes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.gateway.account import AccountApi
from orchestrator.gateway.anthropic import ANTHROPIC, ANTHROPIC_PREFIX, Messages
from orchestrator.gateway.chat import Chat
from orchestrator.gateway.doctor import Doctor
from orchestrator.gateway.endpoint import Endpoint
from orchestrator.gateway.errors import ApiError, server_error
from orchestrator.gateway.fim import Fim
from orchestrator.gateway.http import DEEPSEEK
from orchestrator.gateway.metrics_endpoint import announced_metrics
from orchestrator.gateway.models import Models
from orchestrator.gateway.openapi import document
from orchestrator.gateway.operator_api import operator_routes
from orchestrator.gateway.page import page_routes
from orchestrator.gateway.tenants import Tenants
from orchestrator.telemetry import CONTENT_TYPE, Metrics
from orchestrator.telemetry.targets import FOLDER


def build_app(models: Models, tenants: Tenants, on_start: Callable[[], None]) -> Starlette:
    """The application; its lifespan starts and stops the models, `on_start` runs in between.

    Every path of the API answers with and without `/v1`, which DeepSeek says is no version, and
    `/beta` takes all that `/v1` takes.
    """

    doctor = Doctor(models)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await models.start()
        for task in tenants.tasks():
            models.supervisor.spawn(task)
        models.supervisor.spawn(doctor.keep())
        on_start()
        targets = Path(models.spec.log_dir, FOLDER)
        async with announced_metrics(models.metrics, models.gateway_id, targets, models.log):
            yield
        await models.stop()
        tenants.stop()

    async def health(_: Request) -> Response:
        """200 if a request that came now could be served, 503 with what is missing otherwise."""
        ready = models.ready()
        state = {"ready": ready, "ranks": models.ranks()}
        return JSONResponse(state, status_code=200 if ready else 503)

    async def exposition(_: Request) -> Response:
        return Response(await exposition_of(models.metrics), media_type=CONTENT_TYPE)

    openapi = document(models.names)

    async def describe(_: Request) -> Response:
        return Response(openapi, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", exposition),
            Route("/openapi.json", describe),
            *_api_routes(models, tenants),
            *_anthropic_routes(models, tenants),
            *operator_routes(models, tenants, doctor),
            *page_routes(),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _fault},
    )
    # The redirect would go to whatever host the request names, in plain HTTP, with the key.
    app.router.redirect_slashes = False
    return app


async def exposition_of(counted: Metrics) -> bytes:
    """The metrics' text; the loop turns behind each of them, for streams do not wait."""
    pieces = []
    for piece in counted.pieces():
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join(pieces)


def _api_routes(models: Models, tenants: Tenants) -> list[BaseRoute]:
    account = AccountApi(models.names, tenants)
    routes: list[BaseRoute] = [Route("/user/balance", account.balance)]
    for prefix in ("", "/v1", "/beta", "/beta/v1"):
        beta = prefix.startswith("/beta")
        chat = Endpoint(models, tenants, Chat(models, beta=beta))
        routes += [
            Route(f"{prefix}/chat/completions", chat, methods=["POST"]),
            Route(f"{prefix}/models", account.models),
            Route(f"{prefix}/models/{{name:path}}", account.model),
        ]
        if beta:
            fim = Endpoint(models, tenants, Fim(models))
            routes.append(Route(f"{prefix}/completions", fim, methods=["POST"]))
    return routes


def _anthropic_routes(models: Models, tenants: Tenants) -> list[BaseRoute]:
    messages = Messages(models)
    path = f"{ANTHROPIC_PREFIX}/v1/messages"
    create = Endpoint(models, tenants, messages, ANTHROPIC)
    count = Endpoint(models, tenants, messages.count, ANTHROPIC)
    return [
        Route(path, create, methods=["POST"]),
        Route(f"{path}/count_tokens", count, methods=["POST"]),
    ]


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors, such as an unknown path, in the shape of all others."""
    assert isinstance(error, HTTPException)
    response = _error_response(request, ApiError(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _fault(request: Request, _error: Exception) -> Response:
    """A fault of ours before anything was sent; the server logs it."""
    return _error_response(request, server_error())


def _error_response(request: Request, error: ApiError) -> Response:
    below = request.url.path.startswith(f"{ANTHROPIC_PREFIX}/")
    status, body = (ANTHROPIC if below else DEEPSEEK).error(error)
    return Response(body, status, media_type="application/json")
