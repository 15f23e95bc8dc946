"""Where a prompt's KV is to come from: the prices of computing it in place and of moving it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core import FleetView, RankView, Role
from orchestrator.routing.candidates import OUTPUT_TOKENS, Leg, Question, delays_none, in_time
from orchestrator.routing.choose import Choice, choose_rank
from orchestrator.routing.default_costs import Costs
from orchestrator.spec import StepCosts


class Way(StrEnum):
    """The cheapest way to a prompt's KV."""

    IN_PLACE = "in_place"  # the decoding rank computes it
    IN_TIME = "in_time"  # so it does, though that is dearer: elsewhere the first token came late
    RECOMPUTE = "recompute"  # so it does, though a prefill rank holds more: moving is dearer
    REMOTE = "remote"  # a prefill rank computes most of it, then it is moved
    PULL = "pull"  # a prefill rank holds most of it: it is moved


@dataclass(frozen=True, slots=True)
class Prices:
    """Predicted seconds of both, everything counted that a rank's cost counts."""

    way: Way
    in_place_s: float
    transfer_s: float


def price_ways(
    view: FleetView, decoder: Role, question: Question, costs: Costs, tpot_s: float | None = None
) -> Prices | None:
    """The prices with the best prefill rank and the best decode rank; None if there is no choice.

    `question` is that of the whole request. A decode rank's price in a transfer has what it holds
    taken off: only the rest is moved. Where a first token is promised, and a mean time between
    tokens, `tpot_s`, the dearer way is taken if it is the only one that keeps both, for this
    request and for those that it would hold up.
    """
    whole = choose_rank(view, decoder, replace(question, leg=Leg.WHOLE), costs[decoder])
    prefill = choose_rank(
        view, Role.PREFILL, replace(question, leg=Leg.PREFILL), costs[Role.PREFILL]
    )
    decode = choose_rank(view, decoder, replace(question, leg=Leg.DECODE), costs[decoder])
    if not (
        isinstance(whole, Choice) and isinstance(prefill, Choice) and isinstance(decode, Choice)
    ):
        return None
    transfer_s = prefill.cost_s + decode.cost_s
    if whole.cost_s <= transfer_s:
        more = prefill.hit_tokens > whole.hit_tokens
        way = Way.RECOMPUTE if more else Way.IN_PLACE
    else:
        held = 2 * prefill.hit_tokens > question.prompt_tokens
        way = Way.PULL if held else Way.REMOTE
        if question.due_at is not None and tpot_s is not None:
            moved_s = costs[decoder].transfer_s(question.prompt_tokens - decode.hit_tokens)
            now = view.seen_at
            there, here = _rank(view, prefill), _rank(view, whole)
            elsewhere_s = prefill.wait_s + prefill.work_s + moved_s
            fine = in_time(question, elsewhere_s, 0.0, now) and delays_none(
                there, prefill.wait_s, prefill.work_s + moved_s, now
            )
            # Neither may keep the promise: then the sooner, if nobody else is late by it.
            sooner = whole.wait_s + whole.work_s < elsewhere_s
            if (
                not fine
                and delays_none(here, whole.wait_s, whole.work_s, now)
                and (sooner or in_time(question, whole.wait_s, whole.work_s, now))
                and _bears(here, view.output_tokens, whole, question, costs[decoder], tpot_s)
            ):
                way = Way.IN_TIME
    return Prices(way, whole.cost_s, transfer_s)


def _rank(view: FleetView, choice: Choice) -> RankView:
    return next(rank for rank in view.ranks if rank.rank_id == choice.rank_id)


def _bears(
    rank: RankView,
    output_tokens: float,
    whole: Choice,
    question: Question,
    costs: StepCosts,
    tpot_s: float,
) -> bool:
    """Whether the rank's decodes keep their pace although they stand still for this prefill and
    those before it.
    """
    output_tokens = output_tokens or OUTPUT_TOKENS
    step_s = costs.step_s(
        rank.in_flight_requests + rank.others_requests + 1,
        rank.decoding_tokens + question.prompt_tokens + output_tokens / 2,
    )
    stalled_s = costs.stall * (whole.wait_s + whole.work_s)
    return step_s + stalled_s / output_tokens <= tpot_s
