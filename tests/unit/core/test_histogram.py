"""Quantiles in little memory."""

import random

import pytest

from orchestrator.core import Histogram


def test_quantiles_are_right_to_half_a_percent() -> None:
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(0, 2) for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.9, 0.99):
        exact = values[int(share * len(values))]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.02)
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    assert histogram.quantile(1.0) <= histogram.most


def test_nothing_has_no_mean_and_no_quantile() -> None:
    assert (Histogram().mean, Histogram().quantile(0.5)) == (0.0, 0.0)


def test_parts_add_up_to_the_whole() -> None:
    chance = random.Random(2)
    values = [chance.expovariate(1.0) for _ in range(1_000)]
    whole, parts = Histogram(), [Histogram(), Histogram(), Histogram()]
    for number, value in enumerate(values):
        whole.add(value)
        parts[number % 3].add(value)
    merged = Histogram()
    for part in parts:
        merged.merge(part)
    assert merged.buckets == whole.buckets
    assert (merged.count, merged.most) == (whole.count, whole.most)
    assert merged.total == pytest.approx(whole.total)
