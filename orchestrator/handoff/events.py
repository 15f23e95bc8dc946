"""What happens to a request on its passage, and what its host is to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core import Finish, KvParams, KvSource, RankId, Role, TokenLogprob
from orchestrator.handoff.path import Path

# --- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The request was admitted, and this is its path."""

    path: Path


@dataclass(frozen=True, slots=True)
class Routed:
    """The answer to `Choose`: the rank to use."""

    rank_id: RankId


@dataclass(frozen=True, slots=True)
class NotRouted:
    """The answer to `Choose`: no rank now. `all_excluded`: only ranks that failed us are left."""

    all_excluded: bool = False


@dataclass(frozen=True, slots=True)
class Woken:
    """The fleet has changed or time has passed: a waiting request may look again."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """New ids of one submission; their logprobs, if there are any, are passed on unread."""

    attempt: int
    ids: list[int]
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    """What has been emitted cannot be continued on another rank: a grammar has begun, and another
    engine would begin it anew in the middle of its text.
    """


@dataclass(frozen=True, slots=True)
class Ended:
    """The one end of one submission."""

    attempt: int
    finish: Finish
    kv_params: KvParams | None = None
    cached_tokens: int = 0
    cause: str = ""
    died: bool = False  # and the engine with it


@dataclass(frozen=True, slots=True)
class Moved:
    """The rank that decodes is to be left, and there is another. Ignored unless `movable`."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client went away, or the host has all it wants."""


Event = Begun | Routed | NotRouted | Woken | Tokens | Pinned | Moved | Ended | Cancelled

# --- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask the router for a rank of the role and feed back `Routed` or `NotRouted`."""

    role: Role
    excluded: frozenset[RankId]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two submissions that know of each other: the same `number` of the request, and the peer."""

    number: int
    peer: RankId


@dataclass(frozen=True, slots=True)
class Send:
    """Submit to the rank: the prompt, then `emitted` more ids; draw at most `max_tokens`.

    A transfer has the reference that the prefill ended with, or a `pair`.
    """

    attempt: int
    rank_id: RankId
    kv_source: KvSource
    kv_params: KvParams | None
    emitted: tuple[int, ...]
    max_tokens: int
    pair: Pair | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """These ids are the request's next output."""

    ids: list[int]
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    """Cancel the submission; its end still comes and is ignored."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody will read what this reference names: see that its rank frees the blocks."""

    kv_params: KvParams


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is over. `finish` is STOP, LENGTH, REFUSED or FAILED. `poison`: engines have died
    of it, and nobody is to try it again.
    """

    finish: Finish
    cause: str = ""
    poison: bool = False


Action = Choose | Send | Emit | Abort | Release | Finished
