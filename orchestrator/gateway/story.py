"""What happened to one request at this gateway, kept for `r1-serve why` and for spans.

On the hot path a thing that happens is a small value put into a list, with references to what was
decided on, which never changes. What it means is worked out when somebody asks. There is no prompt
in it, no answer, no tenant and no session.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from zlib import crc32

import msgspec

from orchestrator.core import Finish, KvSource, RankId, Request
from orchestrator.handoff import PathChoice
from orchestrator.routing import Decision, Prices, StepCosts
from orchestrator.spec import WhySpec

FORGOTTEN_MAX = 65_536  # requests of which it is known that they were forgotten
_SHARES = 1 << 16


class Admitted(msgspec.Struct, gc=False):
    """Admission has decided."""

    at: float
    decision: str
    reason: str
    slots: int
    held: int
    queued: int


class PathChosen(msgspec.Struct, gc=False):
    """How the prompt's KV is to come to the rank that decodes."""

    at: float
    choice: PathChoice
    prices: Prices | None
    prefill_ranks: int


class RankChosen(msgspec.Struct):
    """Routing has decided."""

    at: float
    decision: Decision
    costs: StepCosts


class Sent(msgspec.Struct, gc=False):
    """A submission went to a rank."""

    at: float
    attempt: int
    rank_id: RankId
    kv_source: KvSource


class Began(msgspec.Struct, gc=False):
    """Its first token came."""

    at: float
    attempt: int


class Left(msgspec.Struct, gc=False):
    """It ended."""

    at: float
    attempt: int
    finish: Finish
    cached_tokens: int


class Moved(msgspec.Struct, gc=False):
    """The rank drained, and the request was told to leave it."""

    at: float
    rank_id: RankId
    reason: str


class Over(msgspec.Struct, gc=False):
    """The request ended."""

    at: float
    finish: Finish | None  # None: its client left it, or it was shed
    output_tokens: int
    cached_tokens: int


Event = Admitted | PathChosen | RankChosen | Sent | Began | Left | Moved | Over


class Story(msgspec.Struct):
    """One request's."""

    request_id: str
    klass: str
    prompt_tokens: int
    max_tokens: int
    arrived_at: float
    kept: bool  # for `why`; otherwise for spans only
    traceparent: str = ""  # of its span and its client's: `tracing.root_of`; "": it has none
    events: list[Event] = msgspec.field(default_factory=list)
    views: int = 0  # of ranks, in all its decisions


class Stories:
    """The last requests of one model at one gateway, as many as may be."""

    def __init__(self, spec: WhySpec) -> None:
        self._share = int(spec.share * _SHARES)
        self._requests_max = spec.requests_max
        self._views_max = spec.rank_views_max
        self._views = 0
        self._known: OrderedDict[str, Story] = OrderedDict()
        self._forgotten: deque[int] = deque(maxlen=FORGOTTEN_MAX)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Story]:
        """All, the oldest first."""
        return iter(self._known.values())

    def wants(self, request_id: str) -> bool:
        """Whether it is among those that are remembered: always the same for one id."""
        return crc32(request_id.encode()) % _SHARES < self._share

    def begin(self, request: Request, traceparent: str) -> Story | None:
        """The story of a request that has arrived; None if nobody will ask for it."""
        kept = self.wants(request.request_id)
        if not kept and not traceparent:
            return None
        story = Story(
            request.request_id,
            request.klass,
            request.prompt_tokens,
            request.max_tokens,
            request.arrived_at,
            kept,
            traceparent,
        )
        if kept:
            self._known[story.request_id] = story
            self._trim()
        return story

    def grew(self, story: Story, rank_views: int) -> None:
        """A decision with so many ranks was added to it."""
        story.views += rank_views
        if story.kept:
            self._views += rank_views
            self._trim()

    def get(self, request_id: str) -> Story | None:
        """The one of that id, if it is remembered."""
        return self._known.get(request_id)

    def forgot(self, request_id: str) -> bool:
        """Whether it was remembered once."""
        return hash(request_id) in self._forgotten

    def _trim(self) -> None:
        known = self._known
        while len(known) > self._requests_max or (self._views > self._views_max and len(known) > 1):
            request_id, story = known.popitem(last=False)
            self._views -= story.views
            story.kept = False
            self._forgotten.append(hash(request_id))
