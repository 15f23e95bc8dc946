"""The search finds what exact queues are known to take, says so when it cannot, and stops."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from loadtest.capacity import Limits, Search, Step, odd_windows
from loadtest.knee import find_knee
from loadtest.result import Bottleneck, Capacity, Slo, Verdict
from tests.known_queues import (
    DeterministicQueue,
    GeneralQueue,
    deterministic_capacity,
    erlang_capacity,
    searched,
    window_of,
)

SLO = Slo(ttft_s=0.5, itl_s=None, share=0.95)


def exponential(servers: int, service_s: float, seed: int) -> GeneralQueue:
    draw = random.Random(f"service {seed}")
    return GeneralQueue(servers, lambda: draw.expovariate(1 / service_s), seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_what_erlang_says_of_an_exponential_queue(seed: int) -> None:
    truth = erlang_capacity(32, 0.5, 0.5, 0.95)
    capacity, windows = searched(exponential(32, 0.5, seed), SLO)
    assert capacity.per_s == pytest.approx(truth, rel=0.05)
    assert capacity.high_per_s is not None
    assert capacity.low_per_s <= truth <= capacity.high_per_s
    assert len(windows) <= Limits().windows_max


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_finds_what_a_queue_of_fixed_times_takes(seed: int) -> None:
    truth = deterministic_capacity(16, 0.2, 0.5, 0.95, customers=400_000)
    capacity, _ = searched(DeterministicQueue(16, 0.2, seed), SLO)
    assert capacity.per_s == pytest.approx(truth, rel=0.05)
    assert capacity.high_per_s is not None
    assert capacity.low_per_s * 0.99 <= truth <= capacity.high_per_s * 1.01


def test_of_different_services_it_finds_less_where_they_vary() -> None:
    """One of ten takes eleven times as long as the others: the mean is the same."""
    draw = random.Random(5)
    uneven = GeneralQueue(8, lambda: 1.1 if draw.random() < 0.1 else 0.1, 5)
    even, _ = searched(DeterministicQueue(8, 0.2, 5), SLO)
    varied, _ = searched(uneven, SLO)
    assert varied.per_s < even.per_s


def test_the_same_windows_give_the_same_steps() -> None:
    first, windows = searched(DeterministicQueue(4, 0.2, 3), SLO)
    again, same = searched(DeterministicQueue(4, 0.2, 3), SLO)
    assert first == again
    assert windows == same


def test_a_server_that_never_breaks_holds_at_least_the_most_that_is_tried() -> None:
    limits = Limits(most_per_s=20.0)
    capacity, windows = searched(DeterministicQueue(1000, 0.2, 1), SLO, limits=limits)
    assert capacity.verdict is Verdict.AT_LEAST
    assert capacity.per_s == 20.0
    assert capacity.high_per_s is None
    assert len(windows) < 12


def test_the_generators_limit_is_not_the_servers() -> None:
    queue = DeterministicQueue(1000, 0.2, 1)
    capacity, windows = searched(queue, SLO, generator_per_s=50.0)
    assert capacity.verdict is Verdict.AT_LEAST
    assert 30.0 <= capacity.per_s <= 50.0
    assert "generator" in capacity.reason
    assert sum(window.bottleneck is Bottleneck.GENERATOR for window in windows) <= 4


def test_a_knee_below_the_generators_limit_is_found_all_the_same() -> None:
    queue = DeterministicQueue(16, 0.2, 1)
    capacity, _ = searched(queue, SLO, generator_per_s=100.0)
    assert capacity.verdict is Verdict.FOUND
    assert capacity.per_s == pytest.approx(77.3, rel=0.06)


def test_a_generator_that_is_always_late_proves_nothing() -> None:
    capacity, windows = searched(DeterministicQueue(4, 0.2, 1), SLO, generator_per_s=0.0)
    assert capacity.verdict is Verdict.AT_LEAST
    assert capacity.per_s == 0.0
    assert len(windows) <= 4


def made(search: Search, rate_of_misses: float, seed: int = 0) -> Capacity:
    """The answer about a server that misses as many whatever the load."""
    draw = np.random.default_rng(seed)
    for _ in range(200):
        step = search.next()
        if isinstance(step, Capacity):
            return step
        at = np.linspace(0, step.duration_s * 0.999, 200)
        kept: NDArray[np.bool_] = draw.random(200) >= rate_of_misses
        search.note(window_of(step, kept, at, Bottleneck.NONE))
    raise AssertionError("the search did not end")


def test_a_server_that_always_misses_holds_nothing() -> None:
    found = made(Search(SLO, 8.0), 0.5)
    assert found.verdict is Verdict.NOTHING_HOLDS
    assert found.per_s == 0.0
    assert "too" in found.reason


def test_attainment_that_rises_with_load_is_named() -> None:
    step = Step(4.0, 100.0, 0.0, drain=False)
    at = np.linspace(0, 99.9, 4000)
    bad = window_of(step, np.arange(4000) % 5 != 0, at, Bottleneck.NONE)
    more = Step(8.0, 100.0, 0.0, drain=False)
    good = window_of(more, np.ones(4000, dtype=bool), at, Bottleneck.NONE)
    assert odd_windows([good, bad], 10.0) == (bad, good)
    assert odd_windows([good, bad], 1000.0) is None


def test_a_window_lasts_long_enough_for_an_overload_to_show() -> None:
    step = Search(Slo(ttft_s=2.0, itl_s=None, share=0.99), 50.0).next()
    assert isinstance(step, Step)
    assert step.settle_s >= 5.0
    assert step.duration_s >= 10.0


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0.0, 1.0),
    share=st.sampled_from([0.5, 0.9, 0.99]),
    start=st.floats(0.05, 500.0),
)
def test_it_ends_whatever_the_server_does(rate: float, share: float, start: float) -> None:
    limits = Limits(windows_max=12)
    found = made(Search(Slo(1.0, None, share=share), start, limits), rate)
    assert found.low_per_s <= found.per_s
    assert found.high_per_s is None or found.per_s <= found.high_per_s
    assert math.isfinite(found.per_s)


def test_more_windows_make_the_interval_narrower_and_do_not_lose_the_truth() -> None:
    draw = np.random.default_rng(3)
    windows = []
    for number in range(40):
        per_s = 10.0 * (0.9 + 0.2 * (number % 10) / 9)
        step = Step(per_s, 100.0, 0.0, drain=False)
        odds = math.log(0.05 / 0.95) + 30 * math.log(per_s / 10.0)
        kept = draw.random(1000) >= 1 / (1 + math.exp(-odds))
        windows.append(window_of(step, kept, np.linspace(0, 99.9, 1000), Bottleneck.NONE))
    few, many = find_knee(windows[:10], 0.95), find_knee(windows, 0.95)
    assert many.within < few.within
    for knee in (few, many):
        assert knee.low_per_s <= 10.0 <= knee.high_per_s
    assert many.per_s == pytest.approx(10.0, rel=0.02)
    assert many.slope == pytest.approx(30.0, rel=0.3)
    assert many.scatter < 10.0
