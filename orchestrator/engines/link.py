"""A rank whose engine lives in this process: what `RankChannel` is to an engine process."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.core import EngineStartError, Role, TokenLogprob
from orchestrator.engines.channel import ChannelState, TokenSink
from orchestrator.engines.engine import End, Engine, EngineInfo, EngineLoad, Finish, Submit
from orchestrator.handoff import Word

RETRY_S = 2.0  # between two attempts to reach an engine
LOOK_S = 0.5  # between two looks at whether it lives


class Watched(Engine, Protocol):
    """An engine that needs a task of its own beside it."""

    async def watch(self) -> None:
        """Runs until the engine has failed."""
        ...


class EngineLink:
    """One rank's engine, made anew after each failure until `close`.

    `on_state` is called after each change of `state`. Everything is called on the loop of `run`.
    """

    def __init__(
        self,
        make: Callable[[], Watched],
        role: Role,
        requests_max: int,
        on_state: Callable[["EngineLink"], None],
    ) -> None:
        self._make = make
        self._requests_max = requests_max
        self._on_state = on_state
        self._engine: Watched | None = None  # while it can be asked
        self._sinks: dict[str, TokenSink] = {}
        self._closed = asyncio.Event()
        self._load_at = -math.inf
        self.role: Role | None = role
        self.info: EngineInfo | None = None
        self.cause = ""

    @property
    def state(self) -> ChannelState:
        """Whether a submit would be sent now."""
        if self._engine is not None:
            return ChannelState.OPEN
        return ChannelState.LOST if self.cause else ChannelState.CONNECTING

    @property
    def others(self) -> None:
        """Nobody carries what other gateways have in flight there."""
        return None

    @property
    def drain_at(self) -> None:
        """Whose engines these are, nobody tells them to drain."""
        return None

    @property
    def load(self) -> EngineLoad | None:
        """The engine's load, as it last said."""
        return None if self._engine is None else self._engine.load()

    @property
    def open_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._sinks)

    async def run(self) -> None:
        """Reaches the engine, and reaches it again after each failure, until `close`."""
        while not self._closed.is_set():
            engine = self._make()
            try:
                self.info = await engine.start(self)
                self._engine = engine
                self._on_state(self)
                await self._while_alive(engine)
                self.cause = engine.failure() or "the link was closed"
            except EngineStartError as error:
                self.cause = error.cause
            finally:
                self._engine = None
                await engine.stop()
                self._lose()
                self._on_state(self)
            await self._pause(RETRY_S)

    def submit(self, submit: Submit, sink: TokenSink) -> None:
        """Starts a request. Never raises and never calls the sink from inside."""
        cause = ""
        if self._engine is None:
            cause = self.cause or "the engine is not reached yet"
        elif len(self._sinks) >= self._requests_max:
            cause = f"the rank's {self._requests_max} requests are all in use"
        if cause or self._engine is None:
            end = End(Finish.LOST, cause=cause)
            asyncio.get_running_loop().call_soon(sink.on_end, end)
            return
        self._sinks[submit.request_id] = sink
        self._engine.submit(submit)

    def cancel(self, request_id: str) -> None:
        """Ends a request; unknown ids are ignored."""
        if self._engine is not None and request_id in self._sinks:
            self._engine.abort(request_id)

    def say(self, word: Word) -> None:
        """Nobody carries that to other gateways."""

    def close(self) -> None:
        """Ends every open request, then `run`; for good."""
        self._closed.set()

    # What the engine calls.

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        """Passes them to who asked."""
        self._sinks[request_id].on_tokens(ids, logprobs)

    def on_end(self, request_id: str, end: End) -> None:
        """Passes it to who asked."""
        self._sinks.pop(request_id).on_end(end)

    async def _while_alive(self, engine: Watched) -> None:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(engine.watch())
            while engine.failure() is None and not self._closed.is_set():
                await self._pause(LOOK_S)
            watching.cancel()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass

    def _lose(self) -> None:
        """What the engine has left without an end; it has none, so none is called twice."""
        for request_id in list(self._sinks):
            self.on_end(request_id, End(Finish.LOST, cause=self.cause))
