"""What a gateway measures, and what several have measured together."""

import pytest

from orchestrator.scaling import Meter, Observation, together
from orchestrator.spec import StepCosts

COSTS = StepCosts(prefill_base_s=0.1, prefill_token_s=1e-3)


def test_a_rate_is_that_of_the_last_minute() -> None:
    meter = Meter()
    for number in range(1_200):  # ten minutes of two a second
        meter.arrived(100, COSTS, number / 2)
    assert meter.read(0, 0, 0, 600.0).requests_per_s == pytest.approx(2.0, rel=0.02)
    assert meter.read(0, 0, 0, 630.0).requests_per_s == pytest.approx(1.0, rel=0.1)
    assert meter.read(0, 0, 0, 700.0).requests_per_s == 0.0


def test_the_first_minute_is_not_taken_for_a_whole_one() -> None:
    meter = Meter()
    for number in range(40):
        meter.arrived(100, COSTS, number / 2)
    assert meter.read(0, 0, 0, 20.0).requests_per_s == pytest.approx(2.0, rel=0.05)


def test_prompts_are_priced_without_what_is_usually_cached() -> None:
    meter = Meter()
    meter.arrived(1_000, COSTS, 0.0)
    assert meter.read(0, 0, 0, 1.0).prefill_s == pytest.approx(1.1)
    for _ in range(100):
        meter.ended(1_000, 500, 50)
    for _ in range(2_000):
        meter.arrived(1_000, COSTS, 1.0)
    assert meter.read(0, 0, 0, 1.0).prefill_s == pytest.approx(0.6, rel=0.01)


def test_requests_that_failed_before_their_first_token_say_nothing_of_lengths() -> None:
    meter = Meter()
    meter.ended(10, 0, 0)
    meter.ended(10, 0, 300)
    assert meter.output_tokens == 300


def test_gateways_together_have_sums_and_weighted_means() -> None:
    one = Observation(3.0, 1.0, 1.0, 100, 400, running=5, waiting=2, kv_tokens=10)
    two = Observation(1.0, 2.0, 4.0, 200, 800, running=1, waiting=0, kv_tokens=20)
    fresh = Observation()
    assert together([one, two, fresh]) == Observation(
        4.0, 1.25, 1.75, 125, 500, running=6, waiting=2, kv_tokens=20
    )
    assert together([]) == Observation()
