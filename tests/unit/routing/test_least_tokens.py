"""Which rank is chosen, and why."""

from dataclasses import replace

import pytest

from orchestrator.core import FleetView, RankId, RankView, Role
from orchestrator.routing import Choice, NoRank, Reason, choose_rank

IDLE = RankView(RankId("a"), Role.DECODE, 0, 0, requests_max=4)


def view(*ranks: RankView) -> FleetView:
    return FleetView(ranks, seen_at=0.0)


A = IDLE
B = replace(IDLE, rank_id=RankId("b"))
PREFILL = replace(IDLE, rank_id=RankId("p"), role=Role.PREFILL)


@pytest.mark.parametrize(
    ("ranks", "excluded", "expected"),
    [
        ((), (), NoRank(Reason.NO_RANK)),
        ((PREFILL,), (), NoRank(Reason.NO_RANK)),
        ((A,), (), Choice(RankId("a"), Reason.ONLY_RANK)),
        ((A, B), (), Choice(RankId("a"), Reason.LEAST_TOKENS)),
        ((replace(A, in_flight_tokens=9), B), (), Choice(RankId("b"), Reason.LEAST_TOKENS)),
        ((replace(A, engine_waiting=1), B), (), Choice(RankId("b"), Reason.LEAST_TOKENS)),
        ((A, B), ("a",), Choice(RankId("b"), Reason.LEAST_TOKENS)),
        ((A,), ("a",), NoRank(Reason.ALL_EXCLUDED)),
        ((replace(A, in_flight_requests=4),), (), NoRank(Reason.ALL_FULL)),
        (
            (replace(A, in_flight_requests=4), replace(B, in_flight_tokens=99)),
            (),
            Choice(RankId("b"), Reason.LEAST_TOKENS),
        ),
    ],
)
def test_chooses_the_free_rank_with_the_fewest_tokens_in_flight(
    ranks: tuple[RankView, ...], excluded: tuple[str, ...], expected: Choice | NoRank
) -> None:
    assert choose_rank(view(*ranks), Role.DECODE, [RankId(e) for e in excluded]) == expected


def test_equal_views_give_equal_answers_whatever_the_order_of_their_ranks() -> None:
    assert choose_rank(view(A, B), Role.DECODE) == choose_rank(view(B, A), Role.DECODE)
