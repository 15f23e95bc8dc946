"""An engine behind `vllm serve`, or whatever takes token ids at `/v1/completions` as it does.

It is asked with ids and answers with ids: its own templates and parsers are never used.
"""

import asyncio
import contextlib

import msgspec
from typing_extensions import override

from orchestrator.core import EngineStartError
from orchestrator.engines.engine import (
    LOGPROBS_MAX,
    End,
    Engine,
    EngineInfo,
    EngineLoad,
    Finish,
    Listener,
    Submit,
    TokenLogprob,
)
from orchestrator.engines.http.completion import completion_body
from orchestrator.engines.http.exposition import cache_config, load_of
from orchestrator.engines.http.generation import Generation
from orchestrator.engines.http.reading import read, read_metrics
from orchestrator.engines.http.upstream import Call, Pool, post
from orchestrator.engines.kv_reference import kv_fault

BLOCK_TOKENS = 64  # where the server does not say; only what we remember depends on it
POLL_S = 1.0  # between two looks at the engine's health and load
SILENT_POLLS = 3  # looks without an answer after which the engine counts as dead


class HttpEngine(Engine):
    """One server; `watch` must run beside it once it has started."""

    def __init__(self, address: str) -> None:
        """`address` is host:port."""
        self._pool = Pool(address)
        self._listener: Listener | None = None
        self._model = ""
        self._max_model_len = 0
        self._open: dict[str, Call] = {}
        self._load = EngineLoad(0, 0, 0.0, 0)
        self._steps = 0
        self._metrics = b""
        self._failure: str | None = None
        self._stopped = asyncio.Event()

    @override
    async def start(self, listener: Listener) -> EngineInfo:
        """Reads what the server says of itself. Raises EngineStartError if it says nothing."""
        self._listener = listener
        models = await read(self._pool, "/v1/models")
        try:
            served = msgspec.json.decode(models, type=_Models).data[0]
        except (msgspec.DecodeError, IndexError) as error:
            raise EngineStartError(
                f"the server at {self._pool.address} lists no model: {error}",
                "start it with a model, or name another --engine-url",
            ) from error
        self._model = served.id
        self._max_model_len = served.max_model_len or 131_072
        self._metrics = await read_metrics(self._pool)
        block_size, blocks = cache_config(self._metrics)
        block_size = block_size or BLOCK_TOKENS
        return EngineInfo("http", served.id, self._max_model_len, block_size, blocks, grammar=True)

    async def watch(self) -> None:
        """Looks at the engine's load until it is dead, which is then its `failure`."""
        silent = 0
        while self._failure is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._stopped.wait()
                    break
            try:
                self._metrics = await read_metrics(self._pool)
                silent = 0
            except EngineStartError as error:
                silent += 1
                if silent == SILENT_POLLS:
                    self._failure = error.cause
            self._load = EngineLoad(*load_of(self._metrics), self._steps)
        for request_id in list(self._open):
            self.finish(request_id, End(Finish.LOST, cause=self._failure or ""))

    @override
    def submit(self, submit: Submit) -> None:
        fault = self._fault(submit)
        if fault is not None:
            asyncio.get_running_loop().call_soon(
                self._tell_end, submit.request_id, End(Finish.REFUSED, cause=fault)
            )
            return
        body = completion_body(self._model, submit)
        self._open[submit.request_id] = self._pool.ask(
            post("/v1/completions", body), Generation(self, submit)
        )

    @override
    def abort(self, request_id: str) -> None:
        if (call := self._open.get(request_id)) is not None:
            call.cut()
            self.finish(request_id, End(Finish.ABORTED))

    @override
    def load(self) -> EngineLoad:
        return msgspec.structs.replace(self._load, steps=self._steps)

    @override
    def failure(self) -> str | None:
        return self._failure

    @override
    def metrics(self) -> bytes:
        return self._metrics

    @override
    async def stop(self) -> None:
        self._failure = self._failure or "the engine was stopped"
        self._stopped.set()
        for request_id in list(self._open):
            self.abort(request_id)
        await self._pool.close()

    # What generations call.

    def tokens(self, request_id: str, ids: list[int], logprobs: list[TokenLogprob]) -> None:
        """More of a generation's ids."""
        self._steps += 1
        assert self._listener is not None
        self._listener.on_tokens(request_id, ids, logprobs)

    def finish(self, request_id: str, end: End) -> None:
        """The end of a generation; of one that has ended it is ignored."""
        if self._open.pop(request_id, None) is not None:
            self._tell_end(request_id, end)

    def _tell_end(self, request_id: str, end: End) -> None:
        assert self._listener is not None
        self._listener.on_end(request_id, end)

    def _fault(self, submit: Submit) -> str | None:
        """What the server would answer with an error of its own."""
        sampling = submit.sampling
        if not submit.prompt_ids:
            return "the prompt is empty"
        if len(submit.prompt_ids) >= self._max_model_len:
            return f"the prompt leaves no room in {self._max_model_len} tokens"
        if sampling.logprobs is not None and not 0 <= sampling.logprobs <= LOGPROBS_MAX:
            return f"{sampling.logprobs} logprobs; 0 to {LOGPROBS_MAX} can be had"
        return kv_fault(submit)


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]
