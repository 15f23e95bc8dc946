"""Where the load is going: a rate and its slope, by filters that turn as fast as the load does.

Each filter is Kalman's for a rate whose slope wanders and comes to rest again (an integrated
Ornstein-Uhlenbeck process); they differ in how fast. Which of them to believe, each window tells:
weights are the likelihoods of what came, older windows counting less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.scaling.observation import WINDOW_S

# Relative change of the rate a second, one standard deviation. From 0.4/s the slowest sees the
# requests of some 20 minutes, the fastest those of 4; with more load each sees fewer minutes.
_SLOPES = (1e-4, 2e-4, 4e-4, 8e-4, 3.2e-3)
_TURN_S = 14_400.0  # after which a slope says nothing: the load of a day rises for some hours
_KEPT = 0.985  # of a window's say at the next one: what was an hour ago counts less than half
_WEIGHT_MIN = 1e-3  # nobody is out for ever
_BURSTS = 1 / 60  # weight of a window in how much busier than by chance arrivals swing


@dataclass(frozen=True, slots=True)
class Line:
    """Requests a second are `per_s` now, and grow by `slope` each second."""

    per_s: float = 0.0
    slope: float = 0.0

    def ahead(self, ahead_s: float) -> float:
        """Requests a second in so many seconds; not below 0."""
        return max(0.0, self.per_s + self.slope * ahead_s)


@dataclass(frozen=True, slots=True)
class Track:
    """What one filter believes: the rate, its slope, and their variances and covariance."""

    per_s: float
    slope: float
    rate_variance: float
    covariance: float
    slope_variance: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """All filters, as of the window that ended at `at` and had `last` requests a second."""

    at: float
    last: float
    tracks: tuple[Track, ...]
    weights: tuple[float, ...]
    bursts: float = 1.0  # variance of windows, in that of independent arrivals; 1 or more

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return sum(w * each.per_s for w, each in zip(self.weights, self.tracks, strict=True))

    @property
    def slope(self) -> float:
        """Its growth in a second."""
        return sum(w * each.slope for w, each in zip(self.weights, self.tracks, strict=True))


def begun(at: float, per_s: float) -> Forecast:
    """From the first window, which ended at `at`."""
    level = _level(per_s)
    return Forecast(
        at,
        per_s,
        tuple(Track(per_s, 0.0, level / WINDOW_S, 0.0, (s * level) ** 2) for s in _SLOPES),
        (1 / len(_SLOPES),) * len(_SLOPES),
    )


def with_window(forecast: Forecast, at: float, per_s: float) -> Forecast:
    """With one more window, that ended at `at`."""
    level = _level(forecast.per_s)
    by_chance = level / WINDOW_S  # the variance of independent arrivals
    swing = (per_s - forecast.last) ** 2 / 2 / by_chance
    bursts = max(1.0, forecast.bursts + _BURSTS * (swing - forecast.bursts))
    tracks, scores = [], []
    for turn, weight, track in zip(_SLOPES, forecast.weights, forecast.tracks, strict=True):
        moved = _moved(track, at - forecast.at, turn * level)
        track, score = _corrected(moved, per_s, bursts * by_chance)
        tracks.append(track)
        scores.append(_KEPT * math.log(weight) + score)
    return Forecast(at, per_s, tuple(tracks), _weights(scores), bursts)


def line_of(forecast: Forecast, now: float) -> Line:
    """What the filters say together."""
    line = Line(forecast.per_s, forecast.slope)
    return replace(line, per_s=line.ahead(now - forecast.at))


def _level(per_s: float) -> float:
    """What changes are relative to: the rate, but at least a request in a window."""
    return max(per_s, 1 / WINDOW_S)


def _moved(track: Track, after_s: float, slope: float) -> Track:
    """The track so much later; slopes have the standard deviation `slope` at rest."""
    keeps = math.exp(-after_s / _TURN_S)
    gains_s = _TURN_S * (1 - keeps)  # that a slope adds to the rate
    a, b, c = track.rate_variance, track.covariance, track.slope_variance
    rest = slope * slope
    wander = 2 * _TURN_S * after_s - _TURN_S * _TURN_S * (1 - keeps) * (3 - keeps)
    return Track(
        track.per_s + gains_s * track.slope,
        keeps * track.slope,
        a + gains_s * (2 * b + gains_s * c) + rest * wander,
        keeps * (b + gains_s * c) + rest * _TURN_S * (1 - keeps) ** 2,
        keeps * keeps * c + rest * (1 - keeps * keeps),
    )


def _corrected(track: Track, per_s: float, variance: float) -> tuple[Track, float]:
    """The track after a window of that rate, and the logarithm of how likely it was. A window tells
    of its middle.
    """
    before_s = -WINDOW_S / 2
    rate_by = track.rate_variance + before_s * track.covariance
    slope_by = track.covariance + before_s * track.slope_variance
    total = rate_by + before_s * slope_by + variance
    error = per_s - (track.per_s + before_s * track.slope)
    to_rate, to_slope = rate_by / total, slope_by / total
    corrected = Track(
        track.per_s + to_rate * error,
        track.slope + to_slope * error,
        track.rate_variance - to_rate * rate_by,
        track.covariance - to_rate * slope_by,
        track.slope_variance - to_slope * slope_by,
    )
    return corrected, -(error * error / total + math.log(total)) / 2


def _weights(scores: Sequence[float]) -> tuple[float, ...]:
    best = max(scores)
    shares = [math.exp(score - best) for score in scores]
    total = sum(shares)
    shares = [max(_WEIGHT_MIN, share / total) for share in shares]
    total = sum(shares)
    return tuple(share / total for share in shares)
