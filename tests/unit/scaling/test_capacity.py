"""Gangs for a load, by costs that a reader can follow."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.scaling import Observation, PoolFacts, Slo
from orchestrator.scaling.capacity import (
    batch_of,
    decode_gangs,
    held_gangs,
    keeps_slo,
    prefill_gangs,
)
from orchestrator.spec import StepCosts

COSTS = StepCosts(0.0, 1e-3, step_base_s=0.02, step_request_s=1e-3, stall=1.0)
DECODE = PoolFacts(Role.DECODE, 8, 1, COSTS, 260.0, 256)
PREFILL = replace(DECODE, role=Role.PREFILL)
UNIFIED = replace(DECODE, role=Role.UNIFIED)
SLO = Slo(ttft_s=10.0, tpot_s=0.05, attainment=0.99)
SEEN = Observation(
    prefill_s=1.0, prefill_s2=1.0, prompt_tokens=1_000, output_tokens=2_001, kv_tokens=1_000_000
)


def test_a_rank_decodes_as_many_as_keep_the_step_within_the_slo() -> None:
    assert batch_of(DECODE, SLO, SEEN) == pytest.approx(30)  # 20 ms + 30 x 1 ms
    half = replace(SLO, tpot_s=0.0505)  # 31 at every other step keep it on the mean
    assert batch_of(DECODE, half, SEEN) == pytest.approx(30.5)


def test_a_rank_decodes_no_more_than_have_room_for_their_kv() -> None:
    # of 2,000.5 tokens each
    assert batch_of(DECODE, SLO, replace(SEEN, kv_tokens=20_005)) == pytest.approx(10)


def test_a_rank_decodes_no_more_than_its_engine_runs() -> None:
    assert batch_of(replace(DECODE, sequences_max=7), SLO, SEEN) == 7


def test_decode_gangs_hold_what_littles_law_says_and_its_fluctuations() -> None:
    # 3 requests/s of 2,000 steps. 11 gangs hold 24 each: 11 x 24 / (2,000 x 44 ms) = 3 a second.
    # With 2.58 x sqrt(264 x 44 / 20) more that is 326 of 330; 10 gangs would hold 30 each.
    assert decode_gangs(DECODE, SLO, SEEN, 3.0) == 11


def test_an_slo_that_no_batch_keeps_is_carried_at_the_ranks_own_limit() -> None:
    slo = replace(SLO, tpot_s=0.01)
    assert decode_gangs(DECODE, slo, SEEN, 3.0) == math.ceil(3 * 2_000 * (0.02 + 0.256) / 256)
    assert not keeps_slo({Role.DECODE: DECODE}, slo, SEEN)


def test_unified_gangs_are_slowed_down_by_their_prompts() -> None:
    assert decode_gangs(UNIFIED, SLO, SEEN, 3.0) > decode_gangs(DECODE, SLO, SEEN, 3.0)


def test_prefill_gangs_are_never_fewer_than_the_work_and_more_if_the_slo_is_tight() -> None:
    easy = prefill_gangs(PREFILL, SLO, SEEN, 3.5)
    tight = prefill_gangs(PREFILL, replace(SLO, ttft_s=1.6), SEEN, 3.5)
    assert 4 <= easy < tight


def test_a_prefill_pool_may_be_late_oftener_than_the_slo_says_since_others_can_prefill() -> None:
    tight = replace(SLO, ttft_s=3.0)
    alone = prefill_gangs(PREFILL, tight, SEEN, 8.0)
    assert prefill_gangs(PREFILL, tight, SEEN, 8.0, decoding=100) < alone
    # two ranks that decode have no time for a tenth of what eight prefill
    assert prefill_gangs(PREFILL, tight, SEEN, 8.0, decoding=2) == alone
    easy = replace(tight, attainment=0.7)  # an SLO that lets more be late than that
    found = prefill_gangs(PREFILL, easy, SEEN, 8.0, decoding=100)
    assert found == prefill_gangs(PREFILL, easy, SEEN, 8.0)


def test_prompts_that_vary_more_need_more_prefill() -> None:
    tight = replace(SLO, ttft_s=3.0)
    vary = replace(SEEN, prefill_s2=8.0)
    assert prefill_gangs(PREFILL, tight, vary, 3.5) > prefill_gangs(PREFILL, tight, SEEN, 3.5)


def test_a_ttft_that_no_fleet_keeps_still_gets_a_short_queue() -> None:
    slo = replace(SLO, ttft_s=1.0)
    assert prefill_gangs(PREFILL, slo, SEEN, 4.0) == 5  # 80 % busy
    assert not keeps_slo({Role.PREFILL: PREFILL}, slo, SEEN)


def test_what_is_in_the_system_is_held_whatever_the_rate_says() -> None:
    assert held_gangs(DECODE, SLO, replace(SEEN, running=61, waiting=30)) == 4


def test_what_is_in_decode_counts_as_long_as_it_is_there() -> None:
    usual = decode_gangs(DECODE, SLO, SEEN, 3.0)
    few, many = replace(SEEN, running=180), replace(SEEN, running=360)
    soon = [decode_gangs(DECODE, SLO, seen, 3.0, ahead_s=30.0) for seen in (few, many)]
    assert soon[0] < usual < soon[1]
    assert soon[1] >= 12, "360 of 30 each, and few of them end in 30 s"
    late = {decode_gangs(DECODE, SLO, seen, 3.0, ahead_s=3_000.0) for seen in (few, many)}
    assert late == {usual}, "in 3,000 s all of it has ended"


@given(st.floats(0.1, 10.0), st.integers(0, 400), st.floats(0.0, 1_000.0))
def test_what_is_expected_lies_between_what_is_there_and_what_comes_to_rest(
    per_s: float, running: int, ahead_s: float
) -> None:
    seen = replace(SEEN, running=running)
    found = decode_gangs(DECODE, SLO, seen, per_s, ahead_s=ahead_s)
    rest, now = decode_gangs(DECODE, SLO, SEEN, per_s), held_gangs(DECODE, SLO, seen)
    # Half of each has swings of its own: with both the margin is a little larger than either's.
    assert found <= max(rest, decode_gangs(DECODE, SLO, seen, per_s, ahead_s=0.0), now) + 2
    assert found >= min(now, rest // 2)  # half of what is there at rest may be the margin


def test_no_load_needs_no_gang() -> None:
    assert decode_gangs(DECODE, SLO, SEEN, 0.0) == 0
    assert prefill_gangs(PREFILL, SLO, SEEN, 0.0) == 0


@given(st.floats(0.01, 200.0), st.floats(1.0, 2.0), st.sampled_from([DECODE, UNIFIED, PREFILL]))
def test_more_load_never_needs_less(per_s: float, times: float, facts: PoolFacts) -> None:
    needed = prefill_gangs if facts.role is Role.PREFILL else decode_gangs
    assert needed(facts, SLO, SEEN, per_s) <= needed(facts, SLO, SEEN, per_s * times)


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_gangs_of_more_ranks_are_fewer(ranks: int) -> None:
    wide = replace(DECODE, ranks=ranks)
    assert decode_gangs(wide, SLO, SEEN, 30.0) == math.ceil(
        decode_gangs(DECODE, SLO, SEEN, 30.0) / ranks
    )
