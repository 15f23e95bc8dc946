"""Where a prompt's KV is to come from."""

from dataclasses import replace

import pytest

from orchestrator.core import FleetView, RankId, RankView, Role, token_ids
from orchestrator.routing import (
    Leg,
    Prompt,
    Question,
    Router,
    StepCosts,
    Way,
    price_ways,
    same_costs,
)

COSTS = StepCosts(
    prefill_base_s=0.005,
    prefill_token_s=1e-4,
    stall=1.0,
    transfer_base_s=0.01,
    transfer_token_s=2e-6,
)
P = RankView(RankId("p"), Role.PREFILL, 0, 0, requests_max=64)
D = RankView(RankId("d"), Role.DECODE, 0, 0, requests_max=64)
BUSY = replace(D, in_flight_requests=20, decoding_requests=20)


@pytest.mark.parametrize(
    ("prefill", "decode", "hits", "way"),
    [
        (P, D, {}, Way.IN_PLACE),  # nobody is disturbed, and nothing is moved
        (P, BUSY, {}, Way.REMOTE),  # twenty decodes would stand still meanwhile
        (P, BUSY, {"d": 1984}, Way.IN_PLACE),  # hardly any work is left
        (P, BUSY, {"p": 1984}, Way.PULL),
        (replace(P, prefill_free_at=1.0), D, {"p": 1984}, Way.RECOMPUTE),  # a long queue there
    ],
)
def test_the_cheapest_way_depends_on_who_holds_what_and_who_is_busy(
    prefill: RankView, decode: RankView, hits: dict[str, int], way: Way
) -> None:
    held = {RankId(rank): tokens for rank, tokens in hits.items()}
    question = Question(Leg.WHOLE, 2000, 500, held)
    prices = price_ways(FleetView((decode, prefill), 0.0), Role.DECODE, question, same_costs(COSTS))
    assert prices is not None
    assert prices.way is way
    cheaper_in_place = prices.in_place_s <= prices.transfer_s
    assert cheaper_in_place == (way in {Way.IN_PLACE, Way.RECOMPUTE})


def test_without_a_prefill_rank_there_is_nothing_to_choose() -> None:
    question = Question(Leg.WHOLE, 2000, 500, {})
    assert price_ways(FleetView((D,), 0.0), Role.DECODE, question, same_costs(COSTS)) is None


def test_unified_gangs_with_costs_of_their_own_have_nothing_to_choose() -> None:
    unified = replace(D, role=Role.UNIFIED)
    view = FleetView((unified,), 0.0)
    router = Router(64, 1_000, {Role.UNIFIED: COSTS})
    assert router.price(view, Role.UNIFIED, Prompt(token_ids(range(1_000)), 100)) is None
