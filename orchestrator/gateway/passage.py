"""One request on its way through the gateway: what the HTTP side reads, what the service fills."""

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.admission import Shed
from orchestrator.core import RankId, Request, TokenIds, TokenLogprob
from orchestrator.engines import Sampling
from orchestrator.gateway.story import Story
from orchestrator.handoff import Finished, Handoff
from orchestrator.routing import Decision, Prompt

# Given new ids, whether it has dealt with them.
Tap = Callable[[list[int]], bool]


class Passage:
    """Output of one request as it arrives; read by one HTTP handler, filled by `Service`.

    Tokens that arrive while the handler is busy wait in `take`'s list, at most max_tokens of them.
    """

    def __init__(
        self,
        request: Request,
        prompt_ids: TokenIds,
        sampling: Sampling,
        handoff: Handoff,
        cache_salt: str,
        pin_ids: frozenset[int] | None,
    ) -> None:
        self.request = request
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.handoff = handoff
        self.cache_salt = cache_salt
        self._pin_ids = pin_ids
        self.finished: Finished | None = None
        self.shed: Shed | None = None
        self.gone = False  # the client has left
        self.story: Story | None = None  # None: nobody will ask
        self.attempts: dict[int, tuple[str, str]] = {}  # attempt -> (rank id, submission id)
        self.due_at: float | None = None  # when its first token is promised
        self.prompt: Prompt | None = None  # as it was last routed, with what had been emitted
        self.decisions: dict[RankId, Decision] = {}  # routing's last one for each rank
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._awake = asyncio.Event()
        self._tap: Tap | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come; what `take` still holds is the last."""
        return self.finished is not None or self.shed is not None

    def take(self) -> list[int]:
        """The ids that came since the last call, possibly none."""
        ids, self._ids = self._ids, []
        self._awake.clear()
        return ids

    def take_logprobs(self) -> list[TokenLogprob]:
        """Those of the ids that the next `take` returns: to be called before it."""
        logprobs, self._logprobs = self._logprobs, []
        return logprobs

    async def wait(self, until: float) -> None:
        """Returns when there is something to take, the end has come, or at the instant `until`."""
        if self._ids or self.ended or self.gone:
            return
        try:
            async with asyncio.timeout_at(until):
                await self._awake.wait()
        except TimeoutError:
            pass

    def wake(self) -> None:
        """Makes `wait` return, though there may be nothing to take."""
        self._awake.set()

    def leave(self) -> None:
        """The client has left: nobody will read any more."""
        self.gone = True
        self._awake.set()

    def tap(self, tap: Tap) -> None:
        """From now on `tap` is offered new ids that nothing waits before; what it declines, and
        all that comes with logprobs, waits for `take`.
        """
        self._tap = tap

    def put(self, ids: list[int], logprobs: Sequence[TokenLogprob]) -> None:
        """More output."""
        if self._tap is not None and not self._ids and not logprobs and self._tap(ids):
            return
        self._ids.extend(ids)
        self._logprobs.extend(logprobs)
        self._awake.set()

    def pins(self, ids: Sequence[int]) -> bool:
        """Whether the answer that a grammar holds begins with these ids; true once.

        Asked of all output, in its order.
        """
        if self._pin_ids is None or (self._pin_ids and self._pin_ids.isdisjoint(ids)):
            return False
        self._pin_ids = None
        return True

    def finish(self, end: Finished | Shed) -> None:
        """The one end."""
        assert not self.ended
        if isinstance(end, Shed):
            self.shed = end
        else:
            self.finished = end
        self._awake.set()
