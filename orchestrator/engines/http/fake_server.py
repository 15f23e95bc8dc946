"""The fake engine behind the part of vLLM's HTTP API that `HttpEngine` uses.

Deterministic as the fake engine is; ships for tests and demonstrations without vLLM.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.core import KvSource, TokenLogprob, token_ids
from orchestrator.engines.engine import (
    End,
    EngineInfo,
    Finish,
    Grammar,
    GrammarKind,
    Sampling,
    Submit,
)
from orchestrator.engines.fake_engine import FakeEngine

Update = tuple[list[int], Sequence[TokenLogprob]] | End


class _Asked(msgspec.Struct):
    """What vLLM's completion request has of ours."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    stream: bool = False
    logprobs: int | None = None
    structured_outputs: dict[str, str] | None = None
    thinking_token_budget: int | None = None
    cache_salt: str = ""
    kv_transfer_params: dict[str, object] | None = None


class _Queues:
    """Hands each request's output to the handler that waits for it."""

    def __init__(self) -> None:
        self.of: dict[str, asyncio.Queue[Update]] = {}

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        self.of[request_id].put_nowait((ids, logprobs))

    def on_end(self, request_id: str, end: End) -> None:
        self.of[request_id].put_nowait(end)


class FakeServer:
    """One fake engine's HTTP application; its lifespan starts and stops the engine."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._queues = _Queues()
        self._info: EngineInfo | None = None
        self._asked = 0

    def app(self) -> Starlette:
        """The ASGI application."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._info = await self._engine.start(self._queues)
            yield
            await self._engine.stop()

        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/v1/models", self._models),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ],
            lifespan=lifespan,
        )

    async def _health(self, _: Request) -> Response:
        return Response(status_code=200 if self._engine.failure() is None else 503)

    async def _models(self, _: Request) -> Response:
        assert self._info is not None
        model = {"id": self._info.model, "max_model_len": self._info.max_model_len}
        return JSONResponse({"object": "list", "data": [model]})

    async def _metrics(self, _: Request) -> Response:
        assert self._info is not None
        sizes = f'block_size="{self._info.block_size}",num_gpu_blocks="{self._info.kv_blocks}"'
        config = f"vllm:cache_config_info{{{sizes}}} 1.0\n"
        return Response(self._engine.metrics() + config.encode())

    async def _complete(self, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=_Asked)
        except msgspec.DecodeError as error:
            return _error(400, str(error))
        self._asked += 1
        submit = _submit(asked, f"cmpl-{self._asked}")
        queue = self._queues.of[submit.request_id] = asyncio.Queue()
        self._engine.submit(submit)
        first = await queue.get()
        if isinstance(first, End) and first.finish is Finish.REFUSED:
            return _error(400, first.cause)
        if asked.stream:
            return StreamingResponse(
                self._stream(submit, first), media_type="text/event-stream; charset=utf-8"
            )
        ids: list[int] = []
        update = first
        while not isinstance(update, End):
            ids += update[0]
            update = await queue.get()
        del self._queues.of[submit.request_id]
        choice = {"index": 0, "text": "", "token_ids": ids, "finish_reason": _reason(update)}
        body = {"choices": [choice], "kv_transfer_params": update.kv_params}
        return JSONResponse(body)

    async def _stream(self, submit: Submit, first: Update) -> AsyncIterator[bytes]:
        queue = self._queues.of[submit.request_id]
        update = first
        try:
            while not isinstance(update, End):
                yield _event({"choices": [_choice(*update)]})
                update = await queue.get()
            stop = submit.sampling.stop_token_ids[:1] if update.finish is Finish.STOP else ()
            if update.finish is Finish.FAILED:
                yield _event({"error": {"message": update.cause, "code": 500}})
            else:
                yield _event({"choices": [_choice(list(stop), (), _reason(update))]})
                details = {"cached_tokens": update.cached_tokens}
                yield _event({"choices": [], "usage": {"prompt_tokens_details": details}})
            yield b"data: [DONE]\n\n"
        finally:
            self._engine.abort(submit.request_id)  # the client has gone; ended ones are ignored


def _submit(asked: _Asked, request_id: str) -> Submit:
    grammar = None
    if asked.structured_outputs is not None:
        tag = asked.structured_outputs["structural_tag"]
        grammar = Grammar(GrammarKind.STRUCTURAL_TAG, tag)
    params = asked.kv_transfer_params
    source = KvSource.LOCAL
    if params is not None:
        source = KvSource.PRODUCE if params.get("do_remote_decode") else KvSource.TRANSFER
    return Submit(
        request_id,
        token_ids(asked.prompt),
        Sampling(
            asked.max_tokens,
            asked.temperature,
            asked.top_p,
            asked.seed,
            asked.stop_token_ids,
            asked.presence_penalty,
            asked.frequency_penalty,
            asked.logprobs,
            grammar,
            asked.thinking_token_budget,
        ),
        source,
        params if source is KvSource.TRANSFER else None,
        cache_salt=asked.cache_salt,
    )


def _choice(
    ids: list[int], logprobs: Sequence[TokenLogprob], reason: str | None = None
) -> dict[str, object]:
    choice: dict[str, object] = {"index": 0, "text": "", "token_ids": ids, "finish_reason": reason}
    if logprobs:
        choice["logprobs"] = {
            "tokens": [f"token_id:{id_}" for id_ in ids],
            "token_logprobs": [each.logprob for each in logprobs],
            "top_logprobs": [
                {f"token_id:{id_}": value for id_, value in each.top} for each in logprobs
            ],
        }
    return choice


def _reason(end: End) -> str:
    match end.finish:
        case Finish.STOP | Finish.LENGTH:
            return end.finish.value
        case _:
            return "abort"


def _event(body: dict[str, object]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


def _error(status: int, message: str) -> Response:
    error = {"message": message, "type": "BadRequestError", "code": status}
    return JSONResponse({"error": error}, status_code=status)
