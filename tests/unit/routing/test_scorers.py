"""Each term of a candidate's cost."""

from dataclasses import replace

import pytest

from orchestrator.core import RankId, RankView, Role
from orchestrator.routing import Candidates, Leg, Question, StepCosts, candidates
from orchestrator.routing.scorers import SCORERS, Scorer
from orchestrator.routing.scorers.affinity import affinity
from orchestrator.routing.scorers.crowding import crowding
from orchestrator.routing.scorers.decode import decode
from orchestrator.routing.scorers.kv_room import kv_room
from orchestrator.routing.scorers.prefill import prefill
from orchestrator.routing.scorers.queue import queue
from orchestrator.routing.scorers.stall import stall
from orchestrator.routing.scorers.transfer import transfer

COSTS = StepCosts(
    prefill_base_s=0.01,
    prefill_token_s=1e-4,
    step_base_s=0.02,
    step_request_s=0.001,
    stall=0.5,
    transfer_base_s=0.003,
    transfer_token_s=1e-6,
)
IDLE = RankView(RankId("a"), Role.UNIFIED, 0, 0, requests_max=64)
OTHER = replace(IDLE, rank_id=RankId("b"))
NOW = 10.0


def seen(
    *ranks: RankView,
    hits: dict[RankId, int] | None = None,
    leg: Leg = Leg.WHOLE,
    arrivals_per_s: float = 0.0,
    session: tuple[RankId, int] | None = None,
    costs: StepCosts = COSTS,
) -> Candidates:
    question = Question(leg, 1000, 500, hits or {}, *(session or ()))
    return candidates(question, costs, ranks, NOW, arrivals_per_s, output_tokens=100)


def test_prefill_is_the_work_with_what_the_rank_does_not_hold() -> None:
    column = prefill(seen(IDLE, OTHER, hits={RankId("b"): 600}))
    assert column == pytest.approx([0.11, 0.05])


def test_attention_makes_a_long_prompt_dearer_than_its_share() -> None:
    costs = replace(COSTS, prefill_pair_s=1e-6)
    assert costs.prefill_s(1000, 0) == pytest.approx(0.11 + 0.5)
    assert costs.prefill_s(1000, 600) == pytest.approx(0.05 + 1e-6 * 400 * 800)


def test_queue_is_what_is_ahead_and_never_less_than_what_has_not_begun() -> None:
    ahead = replace(IDLE, prefill_free_at=NOW + 0.4, prefill_rest_s=0.1)
    overrun = replace(IDLE, prefill_free_at=NOW - 5, prefill_rest_s=0.1)
    foreign = replace(IDLE, others_prefill_s=0.3)
    assert queue(seen(ahead, overrun, foreign)) == pytest.approx([0.4, 0.1, 0.3])


def test_queue_counts_a_wait_for_a_slot() -> None:
    full = replace(IDLE, in_flight_requests=6, others_requests=2, slots=8, decoding_requests=8)
    free = replace(full, in_flight_requests=5)
    step_s = 0.02 + 8 * 0.001
    assert queue(seen(full, free)) == pytest.approx([100 * step_s / 8, 0.0])


def test_crowding_grows_with_arrivals_and_with_the_queue_that_the_work_joins() -> None:
    queued = replace(IDLE, prefill_free_at=NOW + 1.0)
    column = crowding(seen(IDLE, queued, arrivals_per_s=2.0))
    assert column == pytest.approx([2 * 0.11 * 0.055, 2 * 0.11 * 1.055])
    assert not any(crowding(seen(IDLE, queued)))


def test_decode_prefers_the_smaller_batch_and_counts_what_it_costs_the_others() -> None:
    busy = replace(IDLE, in_flight_requests=10)
    idle_s, busy_s = decode(seen(IDLE, busy))
    assert idle_s == pytest.approx(100 * 0.021)
    assert busy_s == pytest.approx(idle_s + 100 * 0.001 * 10 * 1.5)


def test_stall_is_the_prefill_times_those_it_holds_up() -> None:
    busy = replace(IDLE, in_flight_requests=3, others_requests=1)
    assert stall(seen(IDLE, busy)) == pytest.approx([0.0, 0.5 * 0.11 * 4])


def test_kv_room_is_free_until_it_is_short() -> None:
    roomy = replace(IDLE, kv_tokens=100_000, in_flight_requests=2, decoding_tokens=4000)
    short = replace(roomy, kv_tokens=4500)
    shorter = replace(roomy, kv_tokens=4200)
    unknown = replace(roomy, kv_tokens=0)
    column = kv_room(seen(roomy, short, shorter, unknown))
    assert column[0] == column[3] == 0
    assert 0 < column[1] < column[2]


def test_transfer_moves_what_the_decode_rank_does_not_hold() -> None:
    column = transfer(seen(IDLE, OTHER, hits={RankId("b"): 600}, leg=Leg.DECODE))
    assert column == pytest.approx([0.003 + 1e-3, 0.003 + 4e-4])


def test_affinity_takes_off_what_the_index_does_not_vouch_for() -> None:
    column = affinity(seen(IDLE, OTHER, session=(RankId("b"), 800), hits={RankId("b"): 600}))
    assert column == pytest.approx([0.0, -0.5 * 200 * 1e-4])
    known = seen(IDLE, OTHER, session=(RankId("b"), 800), hits={RankId("b"): 800})
    assert not any(affinity(known))


def test_load_outweighs_affinity() -> None:
    busy = replace(OTHER, prefill_free_at=NOW + 0.2)
    both = seen(IDLE, busy, session=(RankId("b"), 1000))
    costs = [a + q + p for a, q, p in zip(affinity(both), queue(both), prefill(both), strict=True)]
    assert costs[0] < costs[1]


@pytest.mark.parametrize("scorer", {s for terms in SCORERS.values() for s in terms.values()})
@pytest.mark.parametrize("leg", Leg)
def test_every_term_has_a_number_for_each_candidate(scorer: Scorer, leg: Leg) -> None:
    busy = replace(OTHER, in_flight_requests=70, decoding_requests=70, slots=64, kv_tokens=64)
    column = scorer(seen(IDLE, busy, leg=leg, arrivals_per_s=1.0))
    assert len(column) == 2
    assert all(value >= 0 for value in column)
