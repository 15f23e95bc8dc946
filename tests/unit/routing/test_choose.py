"""Which rank is chosen, and why."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import FleetView, RankId, RankView, Role
from orchestrator.routing import (
    Choice,
    Leg,
    NoRank,
    Question,
    Reason,
    StepCosts,
    choose_rank,
)

COSTS = StepCosts(prefill_base_s=0.01, prefill_token_s=1e-4)
A = RankView(RankId("a"), Role.DECODE, 0, 0, requests_max=4)
B = replace(A, rank_id=RankId("b"))
PREFILL = replace(A, rank_id=RankId("p"), role=Role.PREFILL)
NOW = 100.0


def view(*ranks: RankView, arrivals_per_s: float = 0.0) -> FleetView:
    return FleetView(ranks, NOW, arrivals_per_s)


def question(hits: dict[RankId, int] | None = None, tokens: int = 1000) -> Question:
    return Question(Leg.WHOLE, tokens, 500, hits or {})


def chosen(answer: Choice | NoRank) -> tuple[str | None, Reason]:
    return (answer.rank_id if isinstance(answer, Choice) else None), answer.reason


@pytest.mark.parametrize(
    ("ranks", "excluded", "expected"),
    [
        ((), (), (None, Reason.NO_RANK)),
        ((PREFILL,), (), (None, Reason.NO_RANK)),
        ((A,), (), ("a", Reason.ONLY_RANK)),
        ((A, B), ("a",), ("b", Reason.LOAD)),
        ((A,), ("a",), (None, Reason.ALL_EXCLUDED)),
        ((replace(A, in_flight_requests=4),), (), (None, Reason.ALL_FULL)),
        ((replace(A, in_flight_requests=4), B), (), ("b", Reason.LOAD)),
    ],
)
def test_only_free_ranks_of_the_role_that_did_not_fail_are_candidates(
    ranks: tuple[RankView, ...], excluded: tuple[str, ...], expected: tuple[str | None, Reason]
) -> None:
    answer = choose_rank(
        view(*ranks), Role.DECODE, question(), COSTS, [RankId(e) for e in excluded]
    )
    assert chosen(answer) == expected


def test_a_prefix_hit_outweighs_a_wait_that_is_shorter_than_computing_it() -> None:
    hits = {RankId("b"): 800}  # 80 ms of work
    waits_70_ms = replace(B, prefill_free_at=NOW + 0.07)
    waits_90_ms = replace(B, prefill_free_at=NOW + 0.09)
    answer = choose_rank(view(A, waits_70_ms), Role.DECODE, question(hits), COSTS)
    assert chosen(answer) == ("b", Reason.PREFIX)
    answer = choose_rank(view(A, waits_90_ms), Role.DECODE, question(hits), COSTS)
    assert chosen(answer) == ("a", Reason.LOAD)


def test_a_choice_says_what_it_is_predicted_to_cost() -> None:
    rank = replace(A, prefill_free_at=NOW + 0.5)
    answer = choose_rank(view(rank), Role.DECODE, question({RankId("a"): 600}), COSTS)
    assert isinstance(answer, Choice)
    assert answer.wait_s == pytest.approx(0.5)
    assert answer.work_s == pytest.approx(0.01 + 0.04)
    assert answer.hit_tokens == 600
    assert answer.cost_s >= answer.wait_s + answer.work_s


def test_equal_ranks_take_turns_and_then_the_smallest_id_wins() -> None:
    used = replace(A, sent_at=50.0)
    assert chosen(choose_rank(view(used, B), Role.DECODE, question(), COSTS)) == ("b", Reason.TIE)
    assert chosen(choose_rank(view(A, B), Role.DECODE, question(), COSTS)) == ("a", Reason.TIE)


@given(st.permutations([A, B, replace(A, rank_id=RankId("c"), prefill_free_at=NOW + 1)]))
def test_equal_views_give_equal_answers_whatever_the_order_of_their_ranks(
    ranks: list[RankView],
) -> None:
    answer = choose_rank(view(*ranks), Role.DECODE, question({RankId("b"): 64}), COSTS)
    assert chosen(answer)[0] == "b"


def test_in_a_decode_bound_pool_the_batch_decides_and_not_the_prefix() -> None:
    costs = replace(COSTS, step_request_s=0.001)
    crowded = replace(B, in_flight_requests=3, decoding_requests=3)
    answer = choose_rank(view(A, crowded), Role.DECODE, question({RankId("b"): 900}), costs)
    assert chosen(answer) == ("a", Reason.LOAD)


def test_a_first_token_that_was_promised_outweighs_the_cheapest_rank() -> None:
    costs = replace(COSTS, step_request_s=0.001)
    crowded = replace(A, in_flight_requests=3, decoding_requests=3)
    behind = replace(B, prefill_free_at=NOW + 3.0)  # prompts are prefilled where it decodes

    def ranked(due_at: float | None) -> tuple[str | None, Reason]:
        asked = replace(question(), leg=Leg.DECODE, due_at=due_at, max_tokens=8_000)
        seen = FleetView((crowded, behind), NOW, output_tokens=8_000.0)
        return chosen(choose_rank(seen, Role.DECODE, asked, costs))

    assert ranked(None) == ("b", Reason.LOAD)
    assert ranked(NOW + 5.0) == ("b", Reason.LOAD)
    assert ranked(NOW + 3.5) == ("a", Reason.IN_TIME)  # predictions are not that sure
    assert ranked(NOW - 1.0) == ("b", Reason.LOAD), "it is late everywhere"


def test_a_prompt_does_not_lengthen_the_pass_that_another_waits_for() -> None:
    waited_for = replace(A, prefill_due_at=NOW + 0.1)
    asked = replace(question(tokens=2_000), due_at=NOW + 10.0)  # 0.21 s of work
    busier = replace(B, prefill_free_at=NOW + 0.5)
    answer = choose_rank(view(waited_for, busier), Role.DECODE, asked, COSTS)
    assert chosen(answer) == ("b", Reason.IN_TIME)
    late = replace(asked, due_at=NOW)
    answer = choose_rank(view(waited_for, busier), Role.DECODE, late, COSTS)
    assert chosen(answer) == ("b", Reason.IN_TIME), "late itself, it makes nobody else late"
    transferred = replace(asked, leg=Leg.DECODE)
    answer = choose_rank(view(waited_for, busier), Role.DECODE, transferred, COSTS)
    assert chosen(answer)[0] == "a", "there is nothing to compute"
