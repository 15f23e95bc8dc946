"""Where the load is going: a straight line through the last samples, and how wrong it may be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.scaling.observation import WINDOW_S

SAMPLES_MAX = 60  # an hour: what is older weighs nothing
_MEMORY_S = 1_200.0  # after which a sample weighs a third
_JUMP = 4.0  # standard errors: what differs by so much is another load
_FRESH = 2  # samples that tell a jump
_SLOPE = 1.5  # standard errors: a slope that is less is none

Samples = tuple[tuple[float, float], ...]  # instant, requests a second in the window before it


@dataclass(frozen=True, slots=True)
class Line:
    """Requests a second are `per_s` at the instant `at`, and grow by `slope` each second."""

    at: float
    per_s: float = 0.0
    slope: float = 0.0
    variance: float = 0.0  # of one sample
    weight: float = 1.0  # samples that the line rests on
    mean_at: float = 0.0
    spread_s2: float = 0.0  # variance of the samples' instants

    def ahead(self, ahead_s: float, errors: float = 0.0) -> float:
        """Requests a second in so many seconds, and so many standard errors more; not below 0."""
        from_mean_s = self.at + ahead_s - self.mean_at
        share = 1.0 + (from_mean_s * from_mean_s / self.spread_s2 if self.spread_s2 > 0 else 0.0)
        error = math.sqrt(self.variance * share / self.weight)
        return max(0.0, self.per_s + self.slope * ahead_s + errors * error)


def with_sample(samples: Samples, at: float, per_s: float) -> Samples:
    """The samples with one more; after a jump only those since it."""
    samples = (*samples, (at, per_s))[-SAMPLES_MAX:]
    before, fresh = samples[:-_FRESH], samples[-_FRESH:]
    if len(before) <= _FRESH:
        return samples
    was = line_of(before, before[-1][0])
    middle_s = sum(when for when, _ in fresh) / _FRESH - was.at
    mean = sum(rate for _, rate in fresh) / _FRESH
    expected = was.ahead(middle_s)
    error = was.ahead(middle_s, 1.0) - expected
    own = max(was.variance, max(mean, expected) / WINDOW_S) / _FRESH
    jumped = abs(mean - expected) > _JUMP * math.sqrt(error * error + own)
    if not jumped:
        return samples
    last = fresh[-1][1]  # the one before it may be of the old load still
    return tuple(each for each in fresh if abs(each[1] - last) <= abs(each[1] - expected))


def line_of(samples: Sequence[tuple[float, float]], now: float) -> Line:
    """The line of least squares, younger samples before older ones; flat if there are few."""
    if not samples:
        return Line(now)
    weights = [math.exp((at - now) / _MEMORY_S) for at, _ in samples]
    total = sum(weights)
    mean_at = sum(w * at for w, (at, _) in zip(weights, samples, strict=True)) / total
    mean = sum(w * rate for w, (_, rate) in zip(weights, samples, strict=True)) / total
    spread = sum(w * (at - mean_at) ** 2 for w, (at, _) in zip(weights, samples, strict=True))
    effective = total * total / sum(w * w for w in weights)
    slope = 0.0
    if len(samples) > _FRESH and spread > 0:
        both = zip(weights, samples, strict=True)
        slope = sum(w * (at - mean_at) * (rate - mean) for w, (at, rate) in both) / spread
    off = sum(
        w * (rate - mean - slope * (at - mean_at)) ** 2
        for w, (at, rate) in zip(weights, samples, strict=True)
    )
    # Arrivals that are independent vary by their number; real ones by more.
    variance = max(off / total, mean / WINDOW_S)
    spread_s2 = spread / total
    if spread == 0 or abs(slope) < _SLOPE * math.sqrt(variance / (effective * spread_s2)):
        return Line(now, mean, 0.0, variance, effective, mean_at)
    at_now = max(0.0, mean + slope * (now - mean_at))
    return Line(now, at_now, slope, variance, effective, mean_at, spread_s2)
