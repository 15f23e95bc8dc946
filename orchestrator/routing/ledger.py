"""What one gateway has in flight at each rank, and what it believes others have there.

The gateway counts its own requests itself; that is exact and never late. Reports of engines and of
other gateways add the rest, and are as old as they say.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core import RankId, RankView, Role

ARRIVALS_HALF_LIFE = 32  # requests after which an estimate is half forgotten


@dataclass(frozen=True, slots=True)
class Member:
    """A rank, and what is known of its engine; 0 of a size means unknown."""

    rank_id: RankId
    role: Role
    requests_max: int
    slots: int = 0
    kv_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Credit:
    """What gateways have in flight at one rank."""

    requests: int
    prefill_s: float  # predicted work of those without a first token


@dataclass(slots=True)
class _Sent:
    tokens: int  # prompt plus max_tokens
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class _Prefill:
    work_s: float  # predicted
    sent_at: float
    due_at: float | None


@dataclass(slots=True)
class _Rank:
    member: Member
    requests: dict[str, _Sent] = field(default_factory=dict)
    prefills: OrderedDict[str, _Prefill] = field(default_factory=OrderedDict)
    busy_from: float = 0.0  # when the first of those is believed to have begun
    tokens: int = 0
    decoding: int = 0
    decoding_tokens: int = 0
    sent_at: float = 0.0
    running: int = 0
    waiting: int = 0
    reported_at: float = 0.0
    others: Credit = Credit(0, 0.0)
    view: RankView | None = None


class Ledger:
    """The in-flight ledger of one gateway; no I/O, no clock."""

    def __init__(self) -> None:
        self._ranks: dict[RankId, _Rank] = {}
        self._gap_s = 0.0  # between two requests, smoothed
        self._routed_at: float | None = None
        self._work_s = 0.0  # prefill of a request, smoothed
        self.output_tokens = 0.0  # of a request that has ended, smoothed

    # --- ranks -------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """A rank with nothing in flight, or new facts about one that is known."""
        if (rank := self._ranks.get(member.rank_id)) is None:
            self._ranks[member.rank_id] = _Rank(member)
        else:
            rank.member = member
            rank.view = None

    def leave(self, rank_id: RankId) -> None:
        """The rank is gone, with all that it had."""
        self._ranks.pop(rank_id, None)

    def member(self, rank_id: RankId) -> Member:
        """What is known of the rank, which there must be."""
        return self._ranks[rank_id].member

    def view(self, rank_id: RankId) -> RankView:
        """The rank as it is believed to be; the same object until something changes."""
        rank = self._ranks[rank_id]
        if rank.view is None:
            rank.view = _view(rank)
        return rank.view

    def views(self, rank_ids: Iterable[RankId]) -> tuple[RankView, ...]:
        """These ranks, each as `view` has it."""
        ranks = self._ranks
        return tuple([ranks[rank_id].view or self.view(rank_id) for rank_id in rank_ids])

    def in_flight(self, rank_id: RankId) -> int:
        """Requests that have not ended; 0 of a rank that is gone."""
        rank = self._ranks.get(rank_id)
        return len(rank.requests) if rank is not None else 0

    @property
    def arrivals_per_s(self) -> float:
        """How fast this gateway gets requests."""
        return 1.0 / self._gap_s if self._gap_s else 0.0

    # --- our own requests --------------------------------------------------------------------

    def arrived(self, now: float) -> None:
        """A request is being routed for the first time."""
        if self._routed_at is not None:
            gap_s = now - self._routed_at
            weight = 1 / ARRIVALS_HALF_LIFE if self._gap_s else 1.0
            self._gap_s += weight * (gap_s - self._gap_s)
        self._routed_at = now

    def sent(
        self,
        rank_id: RankId,
        submission: str,
        prompt_tokens: int,
        max_tokens: int,
        work_s: float,
        now: float,
        due_at: float | None = None,
    ) -> None:
        """A submission has gone to the rank, where its prefill is predicted to take `work_s`.

        0 is for one whose KV is transferred. Its first token is promised by `due_at`.
        """
        rank = self._ranks[rank_id]
        assert submission not in rank.requests
        rank.requests[submission] = _Sent(prompt_tokens + max_tokens, prompt_tokens)
        rank.tokens += prompt_tokens + max_tokens
        if not rank.prefills:
            rank.busy_from = now
        rank.prefills[submission] = _Prefill(work_s, now, due_at)
        if work_s:
            self._work_s += (work_s - self._work_s) * (
                1 / ARRIVALS_HALF_LIFE if self._work_s else 1
            )
        rank.sent_at = now
        rank.view = None

    def prefilled(self, rank_id: RankId, submission: str, now: float) -> None:
        """Its first token has come; unknown submissions are ignored."""
        rank = self._ranks.get(rank_id)
        if rank is None or rank.prefills.pop(submission, None) is None:
            return
        rank.busy_from = now  # whatever is next began no later than that
        rank.decoding += 1
        rank.decoding_tokens += rank.requests[submission].prompt_tokens
        rank.view = None

    def ended(self, rank_id: RankId, submission: str, now: float) -> None:
        """It is over; unknown submissions are ignored."""
        rank = self._ranks.get(rank_id)
        if rank is None or (sent := rank.requests.pop(submission, None)) is None:
            return
        rank.tokens -= sent.tokens
        if rank.prefills.pop(submission, None) is None:
            rank.decoding -= 1
            rank.decoding_tokens -= sent.prompt_tokens
        else:
            rank.busy_from = now
        rank.view = None

    def drew(self, output_tokens: int) -> None:
        """A request has ended with so many tokens of output, over all its submissions."""
        weight = 1 / ARRIVALS_HALF_LIFE if self.output_tokens else 1.0
        self.output_tokens += weight * (output_tokens - self.output_tokens)

    # --- what others say ---------------------------------------------------------------------

    def reported(
        self,
        rank_id: RankId,
        running: int,
        waiting: int,
        now: float,
        others: Credit | None = None,
    ) -> None:
        """The rank counts so many requests, of all gateways; `others` is what those said of theirs.

        Where nobody carries that, what is not ours is others', and has a prefill like ours.
        """
        rank = self._ranks.get(rank_id)
        if rank is None:
            return
        rank.running, rank.waiting, rank.reported_at = running, waiting, now
        if others is None:
            foreign = max(0, running + waiting - len(rank.requests))
            queued = max(0, min(foreign, waiting - len(rank.prefills)))
            others = Credit(foreign, queued * self._work_s)
        rank.others = others
        rank.view = None


def _view(rank: _Rank) -> RankView:
    prefills = list(rank.prefills.values())
    total_s = sum(each.work_s for each in prefills)
    # What was there when the pass under way began is in it; the others wait for the next one.
    due_at = min(
        (each.due_at for each in prefills if each.due_at and each.sent_at > rank.busy_from),
        default=0.0,
    )
    others = rank.others
    member = rank.member
    return RankView(
        member.rank_id,
        member.role,
        len(rank.requests),
        rank.tokens,
        member.requests_max,
        rank.running,
        rank.waiting,
        rank.busy_from + total_s if prefills else 0.0,
        total_s - prefills[0].work_s if prefills else 0.0,
        due_at,
        rank.decoding,
        rank.decoding_tokens,
        others.requests,
        others.prefill_s,
        member.slots,
        member.kv_tokens,
        rank.sent_at,
        rank.reported_at,
    )
