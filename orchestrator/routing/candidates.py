"""What scorers read: the ranks that may take a request, and predictions about each, in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import RankId, RankView
from orchestrator.spec import StepCosts

OUTPUT_TOKENS = 500.0  # of a request, until any has ended
_SURE = 0.8  # of the time that is left: predicted within, it is kept; running passes are not known


class Leg(StrEnum):
    """What the rank is to do."""

    WHOLE = "whole"  # prefill and decode
    PREFILL = "prefill"  # prefill for another rank
    DECODE = "decode"  # decode from KV that is transferred


@dataclass(frozen=True, slots=True)
class Question:
    """One request at one moment, as routing sees it.

    `hit_tokens` has the prompt tokens that a rank is believed to hold; ranks without any are
    absent. `session_rank` served the session's request before and holds up to `session_tokens`.
    `due_at` is the instant, of the view's clock, at which the first token is promised; None: never,
    or it has come.
    """

    leg: Leg
    prompt_tokens: int
    max_tokens: int
    hit_tokens: Mapping[RankId, int]
    session_rank: RankId | None = None
    session_tokens: int = 0
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """The ranks that passed the filter. Columns have an entry for each, in their order."""

    question: Question
    costs: StepCosts
    ranks: Sequence[RankView]
    arrivals_per_s: float  # at each of the role's ranks
    output_tokens: float  # that the request is expected to draw
    hit_tokens: list[int]
    work_s: list[float]  # its prefill
    wait_s: list[float]  # until that can begin
    batch: list[int]  # requests that are there, of all gateways
    nothing: list[float]  # a column of zeros, for terms that do not apply


def candidates(
    question: Question,
    costs: StepCosts,
    ranks: Sequence[RankView],
    now: float,
    arrivals_per_s: float,
    output_tokens: float,
) -> Candidates:
    """The columns for these ranks."""
    hits = [0] * len(ranks)
    work = [0.0] * len(ranks)
    tokens = question.prompt_tokens
    if question.leg is not Leg.DECODE:
        work = [costs.prefill_s(tokens, 0)] * len(ranks)
    if held := question.hit_tokens:
        for at, rank in enumerate(ranks):
            if rank.rank_id in held:
                hits[at] = hit = held[rank.rank_id]
                if question.leg is not Leg.DECODE:
                    work[at] = costs.prefill_s(tokens, hit)
    return Candidates(
        question,
        costs,
        ranks,
        arrivals_per_s,
        min(float(question.max_tokens), output_tokens or OUTPUT_TOKENS),
        hits,
        work,
        [
            (rank.prefill_rest_s if rank.prefill_rest_s > wait_s else wait_s)
            + rank.others_prefill_s
            for rank in ranks
            for wait_s in (rank.prefill_free_at - now,)
        ],
        [rank.in_flight_requests + rank.others_requests for rank in ranks],
        [0.0] * len(ranks),
    )


def in_time(question: Question, wait_s: float, work_s: float, now: float) -> bool:
    """Whether the request has its first token when it is promised."""
    return question.due_at is None or wait_s + work_s <= _SURE * (question.due_at - now)


def delays_none(rank: RankView, wait_s: float, work_s: float, now: float) -> bool:
    """Whether what waits at the rank keeps its promises with one more prompt: the pass that takes
    it in is the longer, and gives first tokens at its end.
    """
    due_at = rank.prefill_due_at
    return not work_s or not due_at or now + wait_s + work_s <= due_at
