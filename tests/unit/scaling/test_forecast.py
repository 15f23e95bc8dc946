"""Where the load is going."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scaling.forecast import Forecast, begun, line_of, with_window


def told(rates: list[float]) -> Forecast:
    """Of windows of a minute, the first of which ended at 0."""
    forecast = begun(0.0, rates[0])
    for minute, rate in enumerate(rates[1:], 1):
        forecast = with_window(forecast, 60.0 * minute, rate)
    return forecast


def counted(rate: Callable[[float], float], minutes: int, seed: int) -> list[float]:
    """Independent arrivals a second, as windows count them."""
    chance = random.Random(seed)
    found = []
    for minute in range(minutes):
        mean = 60 * rate(60.0 * minute - 30.0)
        at, count = 0.0, 0
        while (at := at + chance.expovariate(1.0)) < mean:
            count += 1
        found.append(count / 60)
    return found


def test_a_ramp_is_followed_to_where_it_will_be() -> None:
    # a window that ends at minute m has the rate of half a minute before
    forecast = told([1.0 + 0.1 * (minute - 0.5) for minute in range(60)])
    line = line_of(forecast, 59 * 60.0)
    assert line.per_s == pytest.approx(6.9, rel=0.01)
    assert line.ahead(300.0) == pytest.approx(7.4, rel=0.02)


def test_time_that_passes_without_a_window_is_on_the_line() -> None:
    forecast = told([1.0 + 0.1 * minute for minute in range(60)])
    now, later = line_of(forecast, 3_540.0), line_of(forecast, 3_590.0)
    assert later.per_s == pytest.approx(now.ahead(50.0))
    assert later.slope == now.slope


def test_a_load_that_only_swings_by_chance_is_told_closely() -> None:
    off = []
    for seed in range(40):
        line = line_of(told(counted(lambda _: 1.0, 180, seed)), 179 * 60.0)
        off.append(line.ahead(270.0) - 1.0)
    error = math.sqrt(sum(each * each for each in off) / len(off))
    assert error < 0.08  # one window alone: 0.13
    assert abs(sum(off) / len(off)) < 0.03


def test_a_day_is_told_closer_than_by_any_window_of_one_length() -> None:
    def rate(at_s: float) -> float:
        return 0.43 - 0.32 * math.cos(2 * math.pi * at_s / 28_800)

    ahead_s = 270.0
    ours, means = [], {5: [0.0], 10: [0.0], 20: [0.0], 40: [0.0]}
    for seed in range(4):
        windows = counted(rate, 480, seed)
        forecast = begun(0.0, windows[0])
        for minute in range(1, 480):
            forecast = with_window(forecast, 60.0 * minute, windows[minute])
            if minute < 60:
                continue
            there = rate(60.0 * minute + ahead_s)
            ours.append((line_of(forecast, 60.0 * minute).ahead(ahead_s) - there) ** 2)
            for length, off in means.items():
                mean = sum(windows[minute - length + 1 : minute + 1]) / length
                off.append((mean - there) ** 2)
    best = min(sum(off) / len(off) for off in means.values())
    assert sum(ours) / len(ours) < 0.6 * best


@pytest.mark.parametrize("to", [0.1, 3.0])
def test_after_a_jump_what_came_before_is_soon_forgotten(to: float) -> None:
    before = [1.0] * 30
    assert line_of(told([*before, *[to] * 5]), 34 * 60.0).per_s == pytest.approx(to, abs=0.3)
    line = line_of(told([*before, *[to] * 20]), 49 * 60.0)
    assert line.per_s == pytest.approx(to, abs=0.06)


def test_arrivals_in_bursts_are_not_taken_for_slopes() -> None:
    chance = random.Random(5)
    calm, bursts = [], []
    for _ in range(40):
        windows = [sum(chance.random() < 0.5 for _ in range(120)) / 60 for _ in range(120)]
        calm.append(told(windows).slope)
        bursts.append(told([1.0 + 4 * (each - 1.0) for each in windows]).slope)

    def spread(found: list[float]) -> float:
        return math.sqrt(sum(each * each for each in found) / len(found))

    assert spread(bursts) < 5 * spread(calm), "four times the swings, and no filter runs after them"


@given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=200))
def test_whatever_comes_the_filters_stay_sound(rates: list[float]) -> None:
    forecast = told(rates)
    line = line_of(forecast, 60.0 * len(rates))
    assert 0 <= line.per_s < math.inf
    assert sum(forecast.weights) == pytest.approx(1.0)
    for track in forecast.tracks:
        assert track.rate_variance > 0
        assert track.slope_variance > 0
        assert track.covariance**2 <= track.rate_variance * track.slope_variance * (1 + 1e-6)
