"""One request's passage prefill -> KV transfer -> decode, as a state machine without I/O.

The host feeds events and does the actions, in order. What it guarantees, whatever arrives in
whatever order: exactly one `Finished` unless the request was cancelled, and then none; no token
after it; a KV reference is used for one decode submission and never again, since an engine answers
a stale one with wrong tokens; at most `attempts_max` submissions.

A rank that dies in mid-stream is survived: prompt plus emitted tokens go to another rank, unless
the host has said that these cannot be continued.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from orchestrator.core import Finish, KvParams, KvSource, RankId, Role, TokenLogprob
from orchestrator.handoff.path import Path
from orchestrator.routing import Leg
from orchestrator.spec import HandoffSpec

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


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client went away, or the host has all it wants."""


Event = Begun | Routed | NotRouted | Woken | Tokens | Pinned | Ended | Cancelled

# --- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask the router for a rank of the role and feed back `Routed` or `NotRouted`."""

    role: Role
    excluded: frozenset[RankId]


@dataclass(frozen=True, slots=True)
class Send:
    """Submit to the rank: the prompt, then `emitted` more ids; draw at most `max_tokens`."""

    attempt: int
    rank_id: RankId
    kv_source: KvSource
    kv_params: KvParams | None
    emitted: tuple[int, ...]
    max_tokens: int


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
class Finished:
    """The request is over. `finish` is STOP, LENGTH, REFUSED or FAILED."""

    finish: Finish
    cause: str = ""


Action = Choose | Send | Emit | Abort | Finished


_PINNED = "an answer that a grammar constrains is not continued on another rank"


class _Phase(Enum):
    NEW = auto()
    CHOOSING_PREFILL = auto()
    PREFILLING = auto()
    CHOOSING_DECODE = auto()
    DECODING = auto()
    OVER = auto()


class Handoff:
    """The passage of one request; `on(event)` is the only way in."""

    def __init__(
        self, spec: HandoffSpec, decoder: Role, prompt_tokens: int, max_tokens: int
    ) -> None:
        assert max_tokens >= 1
        self._spec = spec
        self._decoder = decoder
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._path = Path.IN_PLACE
        self._phase = _Phase.NEW
        self._attempt = 0
        self._rank: RankId | None = None
        self._failed: frozenset[RankId] = frozenset()
        self._kv_params: KvParams | None = None  # held between the legs only
        self._waits_since: float | None = None
        self._not_before = 0.0  # when a rank that has failed may be tried again
        self._cause = ""
        self._pinned = False
        self._cached_tokens: int | None = None
        self.emitted: list[int] = []

    @property
    def cached_tokens(self) -> int:
        """The prefix hit, in tokens; 0 until the leg that prefills has ended."""
        return self._cached_tokens or 0

    @property
    def waiting(self) -> bool:
        """Whether the request has begun and waits for a rank."""
        return self._waits_since is not None

    @property
    def leg(self) -> Leg:
        """What the rank that is being chosen, or was chosen last, has to do."""
        if self._phase in {_Phase.CHOOSING_PREFILL, _Phase.PREFILLING}:
            return Leg.PREFILL
        return Leg.WHOLE if self._kv_params is None else Leg.DECODE

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._phase is _Phase.OVER

    def on(self, event: Event, now: float) -> list[Action]:
        """What the host is to do about the event."""
        if self._phase is _Phase.OVER:
            return []
        match event:
            case Tokens():
                return self._tokens(event)
            case Ended():
                return self._ended(event)
            case Begun(path):
                self._path = path
                return self._restart()
            case Routed(rank_id):
                return self._routed(rank_id)
            case NotRouted(all_excluded):
                return self._not_routed(all_excluded, now)
            case Woken():
                return self._woken(now)
            case Pinned():
                return self._pin()
            case Cancelled():
                return self._cancelled()
            case _:
                assert_never(event)

    def _restart(self) -> list[Action]:
        """From the first leg; what was emitted becomes part of the prompt."""
        self._kv_params = None
        if self._path is Path.TRANSFER:
            return self._choose(_Phase.CHOOSING_PREFILL)
        return self._choose(_Phase.CHOOSING_DECODE)

    def _choose(self, phase: _Phase) -> list[Action]:
        self._phase = phase
        role = Role.PREFILL if phase is _Phase.CHOOSING_PREFILL else self._decoder
        return [Choose(role, self._failed)]

    def _routed(self, rank_id: RankId) -> list[Action]:
        self._waits_since = None
        self._attempt += 1
        self._rank = rank_id
        emitted = tuple(self.emitted)
        if self._phase is _Phase.CHOOSING_PREFILL:
            self._phase = _Phase.PREFILLING
            return [Send(self._attempt, rank_id, KvSource.PRODUCE, None, emitted, 1)]
        assert self._phase is _Phase.CHOOSING_DECODE
        self._phase = _Phase.DECODING
        params, self._kv_params = self._kv_params, None
        source = KvSource.LOCAL if params is None else KvSource.TRANSFER
        left = self._max_tokens - len(emitted)
        return [Send(self._attempt, rank_id, source, params, emitted, left)]

    def _not_routed(self, all_excluded: bool, now: float) -> list[Action]:
        if all_excluded:
            # Better a rank that failed once than none; but not at once: the ranks of a gang die
            # together, and each takes a moment to be seen dead.
            self._failed = frozenset()
            self._not_before = now + self._spec.retry_pause_s
        if self._phase is _Phase.CHOOSING_PREFILL:
            self._path = Path.IN_PLACE  # the decode rank can do it, only slower
            return self._restart()
        if self._waits_since is None:
            self._waits_since = now
        # The prefill rank frees the blocks when their lease ends, which the wait may outlast: the
        # decode rank that comes will prefill in place.
        self._kv_params = None
        return []

    def _woken(self, now: float) -> list[Action]:
        if self._waits_since is None:
            return []
        if now - self._waits_since >= self._spec.resume_wait_s:
            return self._finish(Finish.FAILED, self._cause or "no rank can be reached")
        return self._choose(self._phase) if now >= self._not_before else []

    def _tokens(self, tokens: Tokens) -> list[Action]:
        if tokens.attempt != self._attempt or self._phase is not _Phase.DECODING:
            return []  # the prefill leg's one token is drawn again by the decode rank
        self.emitted.extend(tokens.ids)
        return [Emit(tokens.ids, tokens.logprobs)]

    def _pin(self) -> list[Action]:
        self._pinned = True
        if not self.emitted or self._phase is _Phase.DECODING:
            return []
        aborts = self._cancelled()  # it is being resumed already
        return [*aborts, *self._finish(Finish.FAILED, f"{self._cause}; {_PINNED}")]

    def _ended(self, end: Ended) -> list[Action]:
        if end.attempt != self._attempt:
            return []
        match end.finish:
            case Finish.FAILED | Finish.LOST:
                return self._retry(end.cause)
            case Finish.REFUSED:
                return self._finish(end.finish, end.cause)
            case Finish.ABORTED:
                return self._retry(end.cause or "the engine aborted the request on its own")
            case Finish.STOP | Finish.LENGTH:
                pass
            case _:
                assert_never(end.finish)
        if self._cached_tokens is None:
            self._cached_tokens = end.cached_tokens  # the first leg's: what was a prefix hit
        if self._phase is _Phase.DECODING:
            return self._finish(end.finish, "")
        assert self._phase is _Phase.PREFILLING
        if end.kv_params is None:
            return self._retry("the prefill rank returned no reference to the KV")
        self._kv_params = end.kv_params
        return self._choose(_Phase.CHOOSING_DECODE)

    def _retry(self, cause: str) -> list[Action]:
        self._cause = cause
        if self._rank is not None:
            self._failed |= {self._rank}
        if len(self.emitted) >= self._max_tokens:
            return self._finish(Finish.LENGTH, "")
        if self._pinned and self.emitted:
            return self._finish(Finish.FAILED, f"{cause}; {_PINNED}")
        if self._attempt >= self._spec.attempts_max:
            return self._finish(Finish.FAILED, cause)
        return self._restart()

    def _cancelled(self) -> list[Action]:
        sent = self._phase in {_Phase.PREFILLING, _Phase.DECODING}
        self._phase = _Phase.OVER
        self._waits_since = None
        return [Abort(self._attempt)] if sent else []

    def _finish(self, finish: Finish, cause: str) -> list[Action]:
        self._phase = _Phase.OVER
        self._waits_since = None
        return [Finished(finish, cause)]
