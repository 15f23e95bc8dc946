"""Token buckets: what they let through in any stretch of time."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import Bucket

STEPS = st.lists(st.tuples(st.floats(0, 90), st.integers(1, 40)), min_size=1, max_size=40)


def test_a_minutes_worth_can_be_had_at_once_and_then_a_sixtieth_a_second() -> None:
    bucket = Bucket.full(60, 0.0)
    assert bucket.has(60, 0.0)
    bucket.take(60, 0.0)
    assert not bucket.has(1, 0.5)
    assert bucket.wait_s(1, 0.5) == 0.5
    assert bucket.has(1, 1.0)
    assert bucket.level(1_000.0) == 60


def test_a_bucket_of_less_than_one_a_minute_still_lets_one_through() -> None:
    bucket = Bucket.full(0.5, 0.0)
    assert bucket.has(1, 0.0)
    bucket.take(1, 0.0)
    assert bucket.wait_s(1, 0.0) == 120


def test_an_overdrawn_bucket_delays_what_comes_after_and_takes_back_what_was_too_much() -> None:
    bucket = Bucket.full(60, 0.0)
    bucket.take(120, 0.0)
    assert bucket.wait_s(1, 0.0) == 61
    bucket.take(-30, 0.0)
    assert bucket.wait_s(1, 0.0) == 31
    bucket.take(-1_000, 0.0)
    assert bucket.level(0.0) == 60


@given(st.integers(1, 600), STEPS)
def test_whoever_asks_first_never_takes_more_than_burst_and_rate_allow(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket.full(per_minute, 0.0)
    now, taken = 0.0, []
    for pause_s, amount in steps:
        now += pause_s
        if bucket.has(min(amount, per_minute), now):
            amount = min(amount, per_minute)
            bucket.take(amount, now)
            taken.append((now, amount))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for instant, amount in taken[first:]:
            total += amount
            assert total <= per_minute + per_minute / 60 * (instant - begin) + 1e-6


@given(st.integers(1, 600), STEPS)
def test_of_what_is_known_only_afterwards_only_the_last_taking_overdraws(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket.full(per_minute, 0.0)
    now, total = 0.0, 0
    for pause_s, amount in steps:
        now += pause_s
        if bucket.has(1, now):
            assert total <= per_minute + per_minute / 60 * now + 1e-6
            bucket.take(10 * amount, now)
            total += 10 * amount
