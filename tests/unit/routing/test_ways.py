"""Where a prompt's KV is to come from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


DUE_AT, TPOT_S = 1.0, 0.05
BEHIND = replace(P, prefill_free_at=3.0)
CALM = replace(D, in_flight_requests=20, decoding_requests=20)
FULL = replace(D, in_flight_requests=29, decoding_requests=29)
WAITED_FOR = replace(CALM, prefill_due_at=0.3)
LONG = replace(CALM, prefill_free_at=0.6)
SLOW = same_costs(replace(COSTS, step_base_s=0.02, step_request_s=1e-3))  # 28 at most in 50 ms


@pytest.mark.parametrize(
    ("prefill", "decode", "tokens", "due_at", "way"),
    [
        (BEHIND, CALM, 4_000, DUE_AT, Way.IN_TIME),
        (BEHIND, CALM, 4_000, None, Way.REMOTE),  # dearer in sum, and nobody promised anything
        (replace(P, prefill_free_at=0.3), CALM, 4_000, DUE_AT, Way.REMOTE),  # in time there too
        (BEHIND, FULL, 4_000, DUE_AT, Way.REMOTE),  # others would lose their pace for it
        (BEHIND, CALM, 12_000, DUE_AT, Way.IN_TIME),  # late here as well, but less
        (BEHIND, WAITED_FOR, 4_000, DUE_AT, Way.REMOTE),  # what waits here would be late by it
        (replace(P, prefill_free_at=0.5), LONG, 12_000, DUE_AT, Way.REMOTE),  # later here
    ],
)
def test_a_dearer_way_is_taken_where_it_alone_keeps_what_was_promised(
    prefill: RankView, decode: RankView, tokens: int, due_at: float | None, way: Way
) -> None:
    question = Question(Leg.WHOLE, tokens, 500, {}, due_at=due_at)
    view = FleetView((decode, prefill), 0.0)
    prices = price_ways(view, Role.DECODE, question, SLOW, TPOT_S)
    assert prices is not None
    assert prices.way is way
    assert prices.in_place_s > prices.transfer_s


@pytest.mark.parametrize(
    ("waiting_due_at", "way"),
    [
        (0.0, Way.REMOTE),  # nothing waits: this prompt has its first token in 0.7 s
        (10.95, Way.REMOTE),  # what waits has it with this one, in time
        (10.5, Way.IN_TIME),  # what was promised sooner is late
    ],
)
def test_a_prompt_goes_elsewhere_before_it_makes_one_late_that_waits(
    waiting_due_at: float, way: Way
) -> None:
    prefill = replace(P, prefill_free_at=10.3, prefill_due_at=waiting_due_at)
    view = FleetView((CALM, prefill), 10.0)
    question = Question(Leg.WHOLE, 4_000, 500, {}, due_at=11.0)
    prices = price_ways(view, Role.DECODE, question, SLOW, TPOT_S)
    assert prices is not None
    assert prices.way is way


@given(
    free_at=st.floats(0, 20),
    running=st.integers(0, 40),
    tokens=st.integers(1, 20_000),
    ttft_s=st.floats(0.1, 10),
)
def test_a_promise_changes_nothing_where_the_cheaper_way_keeps_it(
    free_at: float, running: int, tokens: int, ttft_s: float
) -> None:
    decode = replace(CALM, in_flight_requests=running, decoding_requests=running)
    view = FleetView((decode, replace(P, prefill_free_at=free_at)), 0.0)
    question = Question(Leg.WHOLE, tokens, 500, {}, due_at=ttft_s)
    without = price_ways(view, Role.DECODE, question, SLOW)
    found = price_ways(view, Role.DECODE, question, SLOW, TPOT_S)
    assert without is not None
    assert found is not None
    assert (found.in_place_s, found.transfer_s) == (without.in_place_s, without.transfer_s)
    if found.way is not without.way:
        costs = SLOW[Role.PREFILL]
        elsewhere_s = free_at + costs.prefill_s(tokens, 0) + costs.transfer_s(tokens)
        assert elsewhere_s > 0.75 * ttft_s
        assert costs.prefill_s(tokens, 0) < elsewhere_s


def test_without_a_prefill_rank_there_is_nothing_to_choose() -> None:
    question = Question(Leg.WHOLE, 2000, 500, {})
    assert price_ways(FleetView((D,), 0.0), Role.DECODE, question, same_costs(COSTS)) is None


def test_unified_gangs_with_costs_of_their_own_have_nothing_to_choose() -> None:
    unified = replace(D, role=Role.UNIFIED)
    view = FleetView((unified,), 0.0)
    router = Router(64, 1_000, {Role.UNIFIED: COSTS})
    assert router.price(view, Role.UNIFIED, Prompt(token_ids(range(1_000)), 100)) is None
