"""What stays on a gang that drains, and what moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet import DrainReason, DrainVerdict, Running, judge, rest_tokens, wait_s


def running(emitted: int = 1_000, usual: float = 500.0, most: int = 32_768) -> Running:
    """Seen at 10 s with 100 tokens less than now."""
    return Running(emitted, emitted - 100, 10.0, most, usual)


def test_what_ends_within_the_time_that_is_left_stays() -> None:
    # 100 tokens in 5 s; 500 more take 25 s
    found = judge(running(), drain_at=41.0, now=15.0, elsewhere=True)
    assert found == DrainVerdict(False, DrainReason.ENDS_IN_TIME)


def test_what_does_not_is_moved_at_once() -> None:
    found = judge(running(), drain_at=39.0, now=15.0, elsewhere=True)
    assert found == DrainVerdict(True, DrainReason.TOO_LONG)


def test_a_request_is_watched_before_its_pace_is_believed() -> None:
    found = judge(running(), drain_at=13.0, now=11.9, elsewhere=True)
    assert found == DrainVerdict(False, DrainReason.WATCHED)


def test_without_a_usual_length_everything_is_waited_for() -> None:
    found = judge(running(usual=0.0), drain_at=16.0, now=15.0, elsewhere=True)
    assert found == DrainVerdict(False, DrainReason.WATCHED)


def test_when_the_time_is_over_everything_moves() -> None:
    found = judge(running(), drain_at=11.0, now=11.0, elsewhere=True)
    assert found == DrainVerdict(True, DrainReason.OUT_OF_TIME)


def test_nothing_moves_where_no_other_rank_is() -> None:
    found = judge(running(), drain_at=11.0, now=99.0, elsewhere=False)
    assert found == DrainVerdict(False, DrainReason.NOWHERE)


@pytest.mark.parametrize(
    ("emitted", "usual", "most", "rest"),
    [(0, 500.0, 32_768, 500.0), (900, 500.0, 1_000, 100.0)],
)
def test_the_rest_is_that_of_a_usual_request_within_what_it_may_draw(
    emitted: int, usual: float, most: int, rest: float
) -> None:
    assert rest_tokens(Running(emitted, 0, 0.0, most, usual)) == rest


@given(
    st.integers(0, 10_000), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4), st.booleans()
)
def test_behind_the_end_of_its_time_a_request_stays_only_for_want_of_a_rank(
    emitted: int, usual: float, drain_at: float, more_s: float, elsewhere: bool
) -> None:
    found = judge(
        Running(emitted, 0, 0.0, 32_768, usual), drain_at, drain_at + more_s, elsewhere=elsewhere
    )
    assert found.move is elsewhere


@pytest.mark.parametrize(
    ("asked_s", "left_s", "waits_s"),
    [(120.0, None, 120.0), (120.0, 600.0, 120.0), (120.0, 30.0, 15.0), (120.0, 5.0, 0.0)],
)
def test_nodes_that_will_be_gone_are_left_in_time(
    asked_s: float, left_s: float | None, waits_s: float
) -> None:
    assert wait_s(asked_s, left_s) == waits_s
