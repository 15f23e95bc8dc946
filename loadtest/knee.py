"""Where attainment crosses its share: a fit of the share of missed requests against load.

Near saturation the wait in a queue has an exponential tail whose rate falls linearly with load, so
that the odds of a miss grow as a power of the load. Their logit is fitted as a line in the
logarithm of the load, near the knee only: how windows far from it lie tells little of where it is.
Misses come in bursts: the likelihood is tempered by how much more slices and windows scatter than
independent requests would.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.result import Window

Array = NDArray[np.float64]

_SLOPES = np.geomspace(3.0, 500.0, 18)  # of M/M/k queues at 50 % to 99 % of their throughput
_NEAR = 0.25  # of the load's logarithm: how far the line is trusted
_ABOVE = 1.5  # of the odds' logarithm above the knee's: beyond, a window's length decides
_FAR_WEIGHT = 0.005
_SCATTER, _SCATTER_SLICES = 25.0, 6.0  # what is assumed before it is seen, as so many slices
_MODEL_ERROR = 0.035  # half of an interval with any number of windows, of the load's logarithm:
# minutes are not the steady state. So that intervals cover exact queues' capacities, as
# tests/bench/capacity_coverage.py shows.
_GRID, _REACH = 0.005, math.log(3)
_TAIL = 0.025
_MAX_ODDS = 50.0


@dataclass(frozen=True, slots=True)
class Knee:
    """The load at which attainment is the share, with its 95 % interval, in requests per second.

    `slope` is by how many per cent the odds of a miss grow for a per cent of load there;
    `scatter` how many times more attainment varies than that of independent requests.
    """

    per_s: float
    low_per_s: float
    high_per_s: float
    slope: float
    scatter: float

    @property
    def within(self) -> float:
        """Half the interval's width, as a fraction of the load."""
        return (self.high_per_s - self.low_per_s) / (2 * self.per_s)

    def attainment(self, per_s: float, share: float) -> float:
        """What the line has at a load."""
        return float(1 - _line(np.log(per_s), math.log(self.per_s), self.slope, share))


def find_knee(windows: Sequence[Window], share: float) -> Knee:
    """Of windows that the server answers for, none of them empty; in any order.

    The interval is that of the posterior of a flat prior over loads from a third to three times
    where windows seem to break: where none broke, or all did, it runs on to there.
    """
    assert windows
    assert 0 < share < 1
    seen = _Seen.of(windows)
    centre, slope, scatter = _first_guess(seen, share), 20.0, _SCATTER
    grid = np.arange(centre - _REACH, centre + _REACH, _GRID)
    loads = grid.astype(np.float64)
    likelihood, total = _likelihood(seen, loads, share), loads
    for _ in range(4):  # the weights depend on what they yield; more rounds change nothing
        weight = _trust(seen.load - centre, slope)
        scatter = _scatter(seen, weight, _line(seen.load, centre, slope, share), share)
        at_load, at_slope = _posterior(likelihood, weight / scatter)
        total = np.cumsum(at_load)
        centre = _quantile(loads, total, 0.5)
        slope = math.exp(float(np.sum(at_slope * np.log(_SLOPES))))
    widen = _widening(seen.load, centre)
    below, above = (
        math.hypot(widen * (_quantile(loads, total, at) - centre), _MODEL_ERROR)
        for at in (_TAIL, 1 - _TAIL)
    )
    return Knee(
        math.exp(centre), math.exp(centre - below), math.exp(centre + above), slope, scatter
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    load: Array  # logarithm of requests per second: [windows]
    due: Array
    missed: Array
    slices: list[tuple[Array, Array]]  # due, missed: [slices] each

    @staticmethod
    def of(windows: Sequence[Window]) -> "_Seen":
        slices = [
            (
                np.array([part.due for part in window.slices], float),
                np.array([part.due - part.good for part in window.slices], float),
            )
            for window in windows
        ]
        return _Seen(
            np.log([window.offered_per_s for window in windows]),
            np.array([window.due for window in windows], float),
            np.array([window.due - window.good for window in windows], float),
            slices,
        )


def _first_guess(seen: _Seen, share: float) -> float:
    """The cut that parts windows that held from those that broke with fewest on the wrong side."""
    broke = seen.missed / seen.due > 1 - share
    at = np.unique(seen.load)
    cuts = [at[0], *((at[1:] + at[:-1]) / 2), at[-1]]
    wrong = [int(np.sum(broke != (seen.load > cut))) for cut in cuts]
    wrong[0] = int(np.sum(~broke))
    return float(cuts[int(np.argmin(wrong))])


def _widening(load: Array, centre: float) -> float:
    """Student's quantile over the normal one: the scatter itself is known from few windows."""
    free = max(float(np.sum(np.abs(load - centre) < _NEAR)) - 2.0, 1.0)
    return 1 + 1.21 / free + 1.44 / free**2  # Cornish-Fisher, two terms, of the 97.5 % quantile


def _trust(above: Array, slope: float) -> Array:
    """What the line may be held to: less far below the knee, and where most requests miss."""
    near = 1 / (1 + (above / _NEAR) ** 4)
    over = np.maximum(slope * above - _ABOVE, 0.0)
    return np.asarray(np.maximum(near * np.exp(-(over**2) / 2), _FAR_WEIGHT))


def _line(load: Array, centre: float, slope: float, share: float) -> Array:
    odds = math.log((1 - share) / share) + slope * (load - centre)
    return 1 / (1 + np.exp(-np.clip(odds, -_MAX_ODDS, _MAX_ODDS)))


def _scatter(seen: _Seen, weight: Array, expected: Array, share: float) -> float:
    """Variance of misses over a binomial's: the most that slices, their unions and windows say."""
    near = weight > 0.3
    scatter = 1.0
    for size in (1, 2, 4):
        chi, free = _SCATTER * _SCATTER_SLICES, _SCATTER_SLICES
        for more_chi, more_free in _batches(seen, near, size):
            chi, free = chi + more_chi, free + more_free
        scatter = max(scatter, chi / free)
    free = int(near.sum()) - 2
    if free < 3:
        return scatter
    expected = np.clip(expected, 0.1 * (1 - share), 0.99)  # one odd request is no surprise
    chi_by_window = (seen.missed - seen.due * expected) ** 2 / (
        seen.due * expected * (1 - expected)
    )
    return max(scatter, float(np.sum(chi_by_window[near])) / free)


def _batches(seen: _Seen, near: NDArray[np.bool_], size: int) -> Iterator[tuple[float, int]]:
    """Of each window near the knee, chi-square and freedom of its slices, `size` of them joined."""
    for (due, missed), counts in zip(seen.slices, near, strict=True):
        batches = len(due) // size
        if not counts or batches < 3 or not 0 < missed.sum() < due.sum():
            continue
        rate = missed.sum() / due.sum()
        n = due[: batches * size].reshape(batches, size).sum(axis=1)
        m = missed[: batches * size].reshape(batches, size).sum(axis=1)
        m, n = m[n > 0], n[n > 0]
        yield float(np.sum((m - n * rate) ** 2 / (n * rate * (1 - rate)))), len(n) - 1


def _likelihood(seen: _Seen, loads: Array, share: float) -> Array:
    """Its logarithm: [windows, loads, slopes]."""
    base = math.log((1 - share) / share)
    above = seen.load[:, None, None] - loads[None, :, None]
    odds = base + _SLOPES[None, None, :] * above
    due, good = seen.due[:, None, None], (seen.due - seen.missed)[:, None, None]
    return np.asarray(-due * np.logaddexp(0.0, -odds) - good * odds)


def _posterior(likelihood: Array, trust: Array) -> tuple[Array, Array]:
    """Probabilities of each load and of each slope."""
    log = np.tensordot(trust, likelihood, axes=1)
    joint = np.exp(log - log.max())
    joint /= joint.sum()
    return joint.sum(axis=1), joint.sum(axis=0)


def _quantile(loads: Array, total: Array, share: float) -> float:
    return float(np.interp(share, total, loads))
