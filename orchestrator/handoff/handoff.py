"""One request's passage prefill -> KV transfer -> decode, as a state machine without I/O.

The host feeds events and does the actions, in order. What it guarantees, whatever arrives in
whatever order: exactly one `Finished` unless the request was cancelled, and then none; no token
after it; a KV reference goes to one decode submission or is released, once, since an engine answers
a stale one with wrong tokens and holds the blocks of one that nobody reads; a cancel waits for KV
that is on its way; at most `attempts_max` submissions, and one if they come in pairs, since the
last that got on or was moved, or since a thought had to be closed.

A rank that dies in mid-stream is survived: prompt plus emitted tokens go to another rank, unless
the host has said that these cannot be continued. The same is done on purpose with a request whose
rank drains: what it was told to leave ends first, and only then another rank is asked.

A thought that goes on beyond its hard budget is closed here, whatever the engine does: its mark
becomes output, and the answer is drawn behind it.

How the KV moves is the connector's way (`KvHandoff`). PULL: the prefill ends with a reference, with
which any decode rank reads the blocks. PULL_BOUND: the same, but the prefill rank is told its peer
beforehand. PUSH: both ranks are told of each other and begin at once; the prefill rank writes.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from orchestrator.codec import ThoughtLimit
from orchestrator.core import Finish, KvParams, KvSource, RankId, Role
from orchestrator.handoff.events import (
    Abort,
    Action,
    Begun,
    Cancelled,
    Choose,
    Emit,
    Ended,
    Event,
    Finished,
    Moved,
    NotRouted,
    Pair,
    Pinned,
    Release,
    Routed,
    Send,
    Tokens,
    Woken,
)
from orchestrator.handoff.path import Path
from orchestrator.handoff.quarantine import YOUNG_TOKENS
from orchestrator.routing import Leg
from orchestrator.spec import HandoffSpec, KvHandoff

_NO_REFERENCE = "the prefill rank returned no reference to the KV"
_PINNED = "an answer that a grammar constrains is not continued on another rank"


class _Phase(Enum):
    NEW = auto()
    CHOOSING_PREFILL = auto()
    CHOOSING_DECODE = auto()
    SENT = auto()  # a prefill, a decode or both run
    CANCELLED = auto()  # only the KV on its way is waited for
    OVER = auto()


@dataclass(frozen=True, slots=True)
class _Sent:
    attempt: int
    rank_id: RankId


class Handoff:
    """The passage of one request; `on(event)` is the only way in."""

    def __init__(
        self,
        spec: HandoffSpec,
        decoder: Role,
        prompt_tokens: int,
        max_tokens: int,
        thought: ThoughtLimit | None = None,
    ) -> None:
        """`thought` None: it ends when the model ends it."""
        assert max_tokens >= 1
        self._spec = spec
        self._decoder = decoder
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._thought = thought
        self._path = Path.IN_PLACE
        self._phase = _Phase.NEW
        self._attempts = 0
        self._forgiven = 0  # of those, up to the last one that got on, or was moved
        self._pairs = 0
        self._prefill_rank: RankId | None = None  # chosen, and to be told its peer
        self._prefill: _Sent | None = None  # running
        self._decode: _Sent | None = None  # running
        self._peer: RankId | None = None  # the decode rank that the prefill is bound to
        self._moving = False  # the running decode's KV has not come yet, as far as is known
        self._leaving = False  # the running decode was told to end, to be continued elsewhere
        self._left: set[int] = set()  # aborted ones whose end has not come
        self._failed: frozenset[RankId] = frozenset()
        self._kv_params: KvParams | None = None  # held between the legs only
        self._waits_since: float | None = None
        self._not_before = 0.0  # when a rank that has failed may be tried again
        self._cause = ""
        # Gangs that have died, in a row, at the beginning of what they did for it.
        self._deaths: frozenset[str] = frozenset()
        self._sent_tokens = 0  # that had been emitted when the decode was sent
        self._pinned = False
        self._closed_at = 0  # emitted ids when the thought was closed here
        self._cached_tokens: int | None = None
        self.emitted: list[int] = []

    @property
    def cached_tokens(self) -> int:
        """The prefix hit, in tokens; 0 until the leg that prefills has ended."""
        return self._cached_tokens or 0

    @property
    def closed_thought(self) -> bool:
        """Whether the thought had to be closed here."""
        return self._closed_at > 0

    @property
    def waiting(self) -> bool:
        """Whether the request has begun and waits for a rank."""
        return self._waits_since is not None

    @property
    def leg(self) -> Leg:
        """What the rank that is being chosen has to do."""
        if self._phase is _Phase.CHOOSING_PREFILL:
            return Leg.PREFILL
        moved = self._kv_params is not None or self._prefill_rank is not None
        return Leg.DECODE if moved else Leg.WHOLE

    @property
    def movable(self) -> RankId | None:
        """The rank that decodes, if what it does can be continued on another one."""
        if self._decode is None or self._moving or self._leaving or self._pinned:
            return None
        return None if self._phase is _Phase.CANCELLED else self._decode.rank_id

    @property
    def suspect(self) -> bool:
        """Whether an engine may have died of it, and none has shown yet that it is harmless."""
        return bool(self._deaths) and not self.over

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._phase is _Phase.OVER

    def on(self, event: Event, now: float) -> list[Action]:
        """What the host is to do about the event."""
        match event:
            case Tokens():
                return self._tokens(event)
            case Ended():
                return self._ended(event)
            case _ if self._phase in {_Phase.CANCELLED, _Phase.OVER}:
                return []
            case Begun(path):
                self._path = path
                return self._restart()
            case Routed() | NotRouted():
                return self._answered(event, now)
            case Woken():
                return self._woken(now)
            case Pinned():
                return self._pin()
            case Moved():
                return self._move()
            case Cancelled():
                return self._cancelled()
            case _:
                assert_never(event)

    # --- choosing and sending ------------------------------------------------------------------

    def _restart(self) -> list[Action]:
        """From the first leg; what was emitted becomes part of the prompt."""
        assert self._kv_params is None
        self._prefill_rank = self._peer = None
        if self._path is Path.TRANSFER:
            return self._choose(_Phase.CHOOSING_PREFILL)
        return self._choose(_Phase.CHOOSING_DECODE)

    def _choose(self, phase: _Phase) -> list[Action]:
        self._phase = phase
        role = Role.PREFILL if phase is _Phase.CHOOSING_PREFILL else self._decoder
        return [Choose(role, self._failed)]

    def _answered(self, answer: Routed | NotRouted, now: float) -> list[Action]:
        if isinstance(answer, Routed):
            return self._routed(answer.rank_id)
        return self._not_routed(answer.all_excluded, now)

    def _routed(self, rank_id: RankId) -> list[Action]:
        self._waits_since = None
        if self._phase is _Phase.CHOOSING_PREFILL:
            if self._spec.kv is KvHandoff.PULL:
                return [self._send_prefill(rank_id, None)]
            self._prefill_rank = rank_id
            return self._choose(_Phase.CHOOSING_DECODE)
        assert self._phase is _Phase.CHOOSING_DECODE
        prefill_rank, self._prefill_rank = self._prefill_rank, None
        if prefill_rank is None:
            return [self._send_decode(rank_id, None)]
        self._pairs += 1
        prefill = self._send_prefill(prefill_rank, Pair(self._pairs, rank_id))
        if self._spec.kv is KvHandoff.PULL_BOUND:
            self._peer = rank_id
            return [prefill]
        return [prefill, self._send_decode(rank_id, Pair(self._pairs, prefill_rank))]

    def _send_prefill(self, rank_id: RankId, pair: Pair | None) -> Send:
        self._phase = _Phase.SENT
        self._attempts += 1
        self._sent_tokens = len(self.emitted)
        self._prefill = _Sent(self._attempts, rank_id)
        emitted = tuple(self.emitted)
        return Send(self._attempts, rank_id, KvSource.PRODUCE, None, emitted, 1, pair)

    def _send_decode(self, rank_id: RankId, pair: Pair | None) -> Send:
        self._phase = _Phase.SENT
        self._attempts += 1
        self._decode = _Sent(self._attempts, rank_id)
        params, self._kv_params = self._kv_params, None
        self._moving = params is not None or pair is not None
        source = KvSource.TRANSFER if self._moving else KvSource.LOCAL
        self._sent_tokens = len(self.emitted)
        left = self._max_tokens - len(self.emitted)
        return Send(self._attempts, rank_id, source, params, tuple(self.emitted), left, pair)

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
        # The wait may outlast what the prefill rank holds: the decode rank that comes prefills.
        self._prefill_rank = None
        return self._released()

    def _woken(self, now: float) -> list[Action]:
        if self._waits_since is None:
            return []
        if now - self._waits_since >= self._spec.resume_wait_s:
            return self._finish(Finish.FAILED, self._cause or "no rank can be reached")
        return self._choose(self._phase) if now >= self._not_before else []

    # --- what submissions say ------------------------------------------------------------------

    def _tokens(self, tokens: Tokens) -> list[Action]:
        decode = self._decode
        if decode is None or tokens.attempt != decode.attempt:
            return []  # the prefill leg's one token is drawn again by the decode rank
        self._moving = False
        if self._phase is _Phase.CANCELLED:
            return self._stopped()
        if self._thought is not None and (kept := self._thought.cut(tokens.ids)) is not None:
            return self._close_thought(tokens.ids[:kept], self._thought.close_id)
        self.emitted.extend(tokens.ids)
        if self._deaths and not self._young:
            self._deaths = frozenset()
        return [Emit(tokens.ids, tokens.logprobs)]

    def _close_thought(self, ids: list[int], close_id: int) -> list[Action]:
        """The answer goes on behind the mark, where the thought's KV most likely is: in place."""
        ids = [*ids, close_id]
        self.emitted.extend(ids)
        self._closed_at, self._forgiven = len(self.emitted), self._attempts
        actions = [Emit(ids), *self._leave_off()]
        if len(self.emitted) >= self._max_tokens:
            return [*actions, *self._finish(Finish.LENGTH, "")]
        self._path = Path.IN_PLACE
        return [*actions, *self._restart()]

    def _ended(self, end: Ended) -> list[Action]:
        if self._prefill is not None and end.attempt == self._prefill.attempt:
            sent, self._prefill = self._prefill, None
            return self._prefill_ended(end, sent)
        if self._decode is not None and end.attempt == self._decode.attempt:
            sent, self._decode = self._decode, None
            return self._decode_ended(end, sent)
        if end.attempt in self._left:
            self._left.remove(end.attempt)
            if end.kv_params is not None:  # it ended before our abort was there
                return [Release(end.kv_params)]
        return []

    def _prefill_ended(self, end: Ended, sent: _Sent) -> list[Action]:
        match end.finish:
            case Finish.STOP | Finish.LENGTH:
                pass
            case _ if self._decode is not None and not self._moving:
                return []  # it has what it needs
            case Finish.REFUSED if self._phase is not _Phase.CANCELLED:
                return self._finish(end.finish, end.cause)
            case _:
                return self._retry(end, sent)
        if self._cached_tokens is None:
            self._cached_tokens = end.cached_tokens  # the first leg's: what was a prefix hit
        if self._decode is not None:  # pushed to it
            return []
        if end.kv_params is None:
            return self._retry(Ended(end.attempt, Finish.FAILED, cause=_NO_REFERENCE), sent)
        self._kv_params = end.kv_params
        if self._peer is not None:
            return [self._send_decode(self._peer, None)]
        return self._choose(_Phase.CHOOSING_DECODE)

    def _decode_ended(self, end: Ended, sent: _Sent) -> list[Action]:
        if self._phase is _Phase.CANCELLED:
            return self._stopped()
        if self._leaving:
            return self._moved(end)
        match end.finish:
            case Finish.STOP | Finish.LENGTH:
                if self._cached_tokens is None:
                    self._cached_tokens = end.cached_tokens
                return self._finish(end.finish, "")
            case Finish.REFUSED:
                return self._finish(end.finish, end.cause)
            case Finish.FAILED | Finish.LOST | Finish.ABORTED:
                if end.finish is Finish.FAILED and self._moving:
                    self._path = Path.IN_PLACE  # the KV's way may be broken for all: no second try
                return self._retry(end, sent)
            case _:
                assert_never(end.finish)

    # --- moves ---------------------------------------------------------------------------------

    def _move(self) -> list[Action]:
        if self.movable is None:
            return []
        assert self._decode is not None
        self._leaving = True
        return [Abort(self._decode.attempt)]

    def _moved(self, end: Ended) -> list[Action]:
        """The rank has let it go. Whatever it said of the end: tokens that came behind the abort
        were not taken, so another rank draws them, and the end, again.
        """
        self._leaving = False
        self._forgiven = self._attempts
        if self._cached_tokens is None:
            self._cached_tokens = end.cached_tokens
        actions = self._leave_off()
        if len(self.emitted) >= self._max_tokens:
            return [*actions, *self._finish(Finish.LENGTH, "")]
        if self._pinned and self.emitted:
            return [*actions, *self._finish(Finish.FAILED, _PINNED)]
        return [*actions, *self._restart()]

    # --- ends ----------------------------------------------------------------------------------

    def _retry(self, end: Ended, sent: _Sent) -> list[Action]:
        if self._phase is _Phase.CANCELLED:
            return self._stopped()
        cause = end.cause
        if not cause and end.finish is Finish.ABORTED:
            cause = "the engine aborted the request on its own"
        self._cause = cause
        self._failed |= {sent.rank_id}
        actions = self._leave_off()
        if not self._young:
            self._forgiven = self._attempts
        if end.died and self._young:
            gang = sent.rank_id.rpartition("/")[0]
            # All ranks of a gang die together, also those that it was tried on in between.
            self._forgiven += gang in self._deaths
            self._deaths |= {gang}
            if (deaths := len(self._deaths)) >= self._spec.deaths_max:
                said = f"{deaths} engines in a row have died at the beginning of it: {cause}"
                return [*actions, *self._finish(Finish.FAILED, said, poison=True)]
        if len(self.emitted) >= self._max_tokens:
            return [*actions, *self._finish(Finish.LENGTH, "")]
        if self._pinned and len(self.emitted) > self._closed_at:
            return [*actions, *self._finish(Finish.FAILED, f"{cause}; {_PINNED}")]
        if self._attempts - self._forgiven >= self._spec.attempts_max:
            return [*actions, *self._finish(Finish.FAILED, cause)]
        return [*actions, *self._restart()]

    @property
    def _young(self) -> bool:
        """Whether the engine that has it, or had it last, was only at the beginning of its work."""
        return len(self.emitted) - self._sent_tokens < YOUNG_TOKENS

    def _pin(self) -> list[Action]:
        self._pinned = True
        if len(self.emitted) <= self._closed_at or self._decode is not None:
            return []
        # it is being resumed already
        return self._finish(Finish.FAILED, f"{self._cause}; {_PINNED}")

    def _cancelled(self) -> list[Action]:
        self._waits_since = None
        if self._decode is not None and self._moving:
            self._phase = _Phase.CANCELLED
            return []
        return self._stopped()

    def _stopped(self) -> list[Action]:
        """The end of a request that nobody waits for."""
        self._phase = _Phase.OVER
        return [*self._leave_off(), *self._released()]

    def _finish(self, finish: Finish, cause: str, *, poison: bool = False) -> list[Action]:
        self._waits_since = None
        return [*self._stopped(), Finished(finish, cause, poison)]

    def _leave_off(self) -> list[Action]:
        """Aborts what runs; its ends are no longer waited for."""
        running = [sent for sent in (self._prefill, self._decode) if sent is not None]
        told = self._decode if self._leaving else None
        self._prefill = self._decode = None
        self._leaving = False
        self._left.update(sent.attempt for sent in running)
        return [Abort(sent.attempt) for sent in running if sent is not told]

    def _released(self) -> list[Action]:
        params, self._kv_params = self._kv_params, None
        return [] if params is None else [Release(params)]
