"""Where a prompt's KV is to come from: the prices of computing it in place and of moving it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core import FleetView, Role
from orchestrator.routing.candidates import Leg, Question
from orchestrator.routing.choose import Choice, choose_rank
from orchestrator.routing.default_costs import Costs


class Way(StrEnum):
    """The cheapest way to a prompt's KV."""

    IN_PLACE = "in_place"  # the decoding rank computes it
    RECOMPUTE = "recompute"  # so it does, though a prefill rank holds more: moving is dearer
    REMOTE = "remote"  # a prefill rank computes most of it, then it is moved
    PULL = "pull"  # a prefill rank holds most of it: it is moved


@dataclass(frozen=True, slots=True)
class Prices:
    """Predicted seconds of both, everything counted that a rank's cost counts."""

    way: Way
    in_place_s: float
    transfer_s: float


def price_ways(view: FleetView, decoder: Role, question: Question, costs: Costs) -> Prices | None:
    """The prices with the best prefill rank and the best decode rank; None if there is no choice.

    `question` is that of the whole request. A decode rank's price in a transfer has what it holds
    taken off: only the rest is moved.
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
    return Prices(way, whole.cost_s, transfer_s)
