"""One request on its way through the gateway: what the HTTP side reads, what the service fills."""

import asyncio

from orchestrator.admission import Shed
from orchestrator.core import Request
from orchestrator.engines import Sampling
from orchestrator.handoff import Finished, Handoff


class Passage:
    """Output of one request as it arrives; read by one HTTP handler, filled by `Service`.

    Tokens that arrive while the handler is busy wait in `take`'s list, at most max_tokens of them.
    """

    def __init__(
        self,
        request: Request,
        prompt_ids: tuple[int, ...],
        sampling: Sampling,
        handoff: Handoff,
    ) -> None:
        self.request = request
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.handoff = handoff
        self.finished: Finished | None = None
        self.shed: Shed | None = None
        self.gone = False  # the client has left
        self.attempts: dict[int, tuple[str, str]] = {}  # attempt -> (rank id, submission id)
        self._ids: list[int] = []
        self._awake = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come; what `take` still holds is the last."""
        return self.finished is not None or self.shed is not None

    def take(self) -> list[int]:
        """The ids that came since the last call, possibly none."""
        ids, self._ids = self._ids, []
        self._awake.clear()
        return ids

    async def wait(self, timeout_s: float) -> bool:
        """True when there is something to take or the end has come, False after the time."""
        if self._ids or self.ended or self.gone:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._awake.wait()
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """The client has left: nobody will read any more."""
        self.gone = True
        self._awake.set()

    def put(self, ids: list[int]) -> None:
        """More output."""
        self._ids.extend(ids)
        self._awake.set()

    def finish(self, end: Finished | Shed) -> None:
        """The one end."""
        assert not self.ended
        if isinstance(end, Shed):
            self.shed = end
        else:
            self.finished = end
        self._awake.set()
