"""Which rank takes a request: filter, score, pick."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import FleetView, RankId, RankView, Role
from orchestrator.routing.candidates import Candidates, Question, candidates, delays_none, in_time
from orchestrator.routing.scorers import SCORERS
from orchestrator.spec import StepCosts

TIE_S = 0.002  # predictions are no better than that: closer costs are equal


class Reason(StrEnum):
    """Why a rank was chosen, or none."""

    ONLY_RANK = "only_rank"
    PREFIX = "prefix"  # the cheapest, and it holds more of the prompt than any other
    LOAD = "load"  # the cheapest, though another holds as much or more of the prompt
    IN_TIME = "in_time"  # the cheapest where first tokens come when they are promised
    TIE = "tie"  # of equal ones, the one that got no request for the longest time
    NO_RANK = "no_rank"  # none of that role can be reached
    ALL_FULL = "all_full"  # every rank of that role has its requests_max
    ALL_EXCLUDED = "all_excluded"  # every rank left has failed this request before


@dataclass(frozen=True, slots=True)
class Choice:
    """The rank to send the request to, and what that is predicted to cost."""

    rank_id: RankId
    reason: Reason
    cost_s: float = 0.0
    wait_s: float = 0.0  # of it, until the rank's prefill begins
    work_s: float = 0.0  # and that prefill
    hit_tokens: int = 0


@dataclass(frozen=True, slots=True)
class NoRank:
    """No rank can take the request now; waiting may help."""

    reason: Reason


def choose_rank(
    view: FleetView,
    role: Role,
    question: Question,
    costs: StepCosts,
    excluded: Collection[RankId] = (),
) -> Choice | NoRank:
    """The rank of `role` where the request costs the fewest seconds, its own and others'.

    Equal arguments give equal answers, whatever the order of the view's ranks.
    """
    ranks = view.of(role)
    allowed = filter_ranks(ranks, excluded)
    if isinstance(allowed, NoRank):
        return allowed
    seen = candidates(
        question,
        costs,
        allowed,
        view.seen_at,
        view.arrivals_per_s / len(ranks),
        view.output_tokens,
    )
    return pick(seen, score(seen), view.seen_at, only=len(ranks) == 1)


def filter_ranks(
    ranks: Sequence[RankView], excluded: Collection[RankId]
) -> Sequence[RankView] | NoRank:
    """The ranks that may take one more request."""
    if not ranks:
        return NoRank(Reason.NO_RANK)
    allowed = [rank for rank in ranks if rank.rank_id not in excluded] if excluded else ranks
    if not allowed:
        return NoRank(Reason.ALL_EXCLUDED)
    free = [rank for rank in allowed if rank.in_flight_requests < rank.requests_max]
    return free or NoRank(Reason.ALL_FULL)


def score(seen: Candidates) -> list[float]:
    """The seconds that each candidate costs."""
    scorers = SCORERS[seen.question.leg].values()
    columns = [column for scorer in scorers if (column := scorer(seen)) is not seen.nothing]
    return list(map(sum, zip(*columns, strict=True)))


def explain(seen: Candidates) -> dict[str, list[float]]:
    """The terms of each candidate's cost, by name."""
    return {name: scorer(seen) for name, scorer in SCORERS[seen.question.leg].items()}


def pick(seen: Candidates, costs_s: Sequence[float], now: float, *, only: bool) -> Choice:
    """The cheapest where first tokens come when they are promised; of equal ones the one that
    waited longest for a request, then by id.
    """
    most = min(costs_s) + TIE_S
    equal = [at for at, cost_s in enumerate(costs_s) if cost_s <= most]
    if seen.question.due_at is not None:
        equal = _promised(seen, costs_s, now, equal)
    ranks = seen.ranks
    best = min(equal, key=lambda at: (ranks[at].sent_at, ranks[at].rank_id))
    return Choice(
        seen.ranks[best].rank_id,
        Reason.ONLY_RANK if only else _reason(seen, costs_s, best, len(equal)),
        costs_s[best],
        seen.wait_s[best],
        seen.work_s[best],
        seen.hit_tokens[best],
    )


def _promised(
    seen: Candidates, costs_s: Sequence[float], now: float, cheapest: list[int]
) -> list[int]:
    """The cheapest candidates where all first tokens come when they are promised, else those of
    others, else wherever.
    """

    def harmless(at: int) -> bool:
        return delays_none(seen.ranks[at], seen.wait_s[at], seen.work_s[at], now)

    def timely(at: int) -> bool:
        return harmless(at) and in_time(seen.question, seen.wait_s[at], seen.work_s[at], now)

    every = range(len(costs_s))
    if kept := [at for at in cheapest if timely(at)]:  # nearly always: no look at the others
        most = min(costs_s[at] for at in kept) + TIE_S
        return [at for at in every if costs_s[at] <= most and timely(at)]
    among = [at for at in every if timely(at)] or [at for at in every if harmless(at)] or every
    most = min(costs_s[at] for at in among) + TIE_S
    return [at for at in among if costs_s[at] <= most]


def _reason(seen: Candidates, costs_s: Sequence[float], best: int, equal: int) -> Reason:
    hits = seen.hit_tokens
    if min(costs_s) + TIE_S < costs_s[best]:
        return Reason.IN_TIME
    if hits[best] and hits.count(hits[best]) == 1 and hits[best] == max(hits):
        return Reason.PREFIX
    return Reason.TIE if equal > 1 else Reason.LOAD
