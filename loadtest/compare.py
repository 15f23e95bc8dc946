"""Whether two runs differ: tests at equal loads, corrected for there being many.

A server's requests are no independent draws: neighbours share a queue. So each test's variance is
that of independent requests times the scatter that slices show, of both runs together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from loadtest.reading import Point, over, points
from loadtest.result import Latency, Result
from orchestrator.core import Histogram

_SAME = 0.05  # loads that differ by less are compared
_ALPHA = 0.05  # chance that a comparison of equal runs finds any difference
_SCATTER, _SCATTER_SLICES = 2.0, 6.0  # assumed before it is seen, as so many slices
_NO_SLICES = 6.0  # where slices say nothing of latencies
_SHARES = (0.5, 0.9, 0.99)
_FEW = 5  # values beyond a quantile, of both runs, below which it is not tested


class Finding(StrEnum):
    """What a difference means for whom the server serves."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "cannot be told"


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of both runs. `p` is corrected for the number of tests."""

    per_s: float | None  # the load; None: of the whole run
    measure: str
    unit: str
    a: float
    b: float
    p: float
    finding: Finding


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two runs; without an equal load only their capacities."""

    differences: tuple[Difference, ...]
    unmatched: tuple[float, ...]  # loads of either run that the other does not have

    @property
    def told(self) -> list[Difference]:
        """Those that chance does not explain."""
        return [one for one in self.differences if one.finding is not Finding.NONE]

    @property
    def worse(self) -> bool:
        """Whether b is worse than a in anything."""
        return any(one.finding is Finding.WORSE for one in self.differences)


@dataclass(frozen=True, slots=True)
class _Test:
    per_s: float | None
    measure: str
    unit: str
    a: float
    b: float
    z: float  # above 0: b is better


def compare(a: Result, b: Result) -> Comparison:
    """Of runs with the same SLO; windows that the generator was the bottleneck of do not count."""
    of_a, of_b = ([p for p in points(r.windows) if not p.generator_bound] for r in (a, b))
    pairs = _pairs(of_a, of_b)
    tests = list(_capacities(a, b))
    for one, other in pairs:
        tests += _at_load(one, other)
    corrected = _holm([_two_sided(test.z) for test in tests])
    found = []
    for test, p in zip(tests, corrected, strict=True):
        told = p < _ALPHA
        way = Finding.BETTER if test.z > 0 else Finding.WORSE
        found.append(
            Difference(
                test.per_s,
                test.measure,
                test.unit,
                test.a,
                test.b,
                p,
                way if told else Finding.NONE,
            )
        )
    matched = {id(point) for pair in pairs for point in pair}
    alone = sorted(point.per_s for point in (*of_a, *of_b) if id(point) not in matched)
    return Comparison(tuple(found), tuple(alone))


def _pairs(of_a: list[Point], of_b: list[Point]) -> list[tuple[Point, Point]]:
    """Each point once, with the nearest of the other run."""
    out: list[tuple[Point, Point]] = []
    left = list(of_b)
    for one in of_a:
        near = min(left, key=lambda other: abs(other.per_s / one.per_s - 1), default=None)
        if near is not None and abs(near.per_s / one.per_s - 1) <= _SAME:
            out.append((one, near))
            left.remove(near)
    return out


def _capacities(a: Result, b: Result) -> list[_Test]:
    if a.capacity is None or b.capacity is None:
        return []
    ends = []
    for capacity in (a.capacity, b.capacity):
        if not capacity.low_per_s or not capacity.high_per_s or not capacity.per_s:
            return []
        width = math.log(capacity.high_per_s / capacity.low_per_s) / (2 * 1.96)
        ends.append((math.log(capacity.per_s), width))
    (of_a, wide_a), (of_b, wide_b) = ends
    error = math.hypot(wide_a, wide_b)
    z = (of_b - of_a) / error if error else 0.0
    return [_Test(None, "capacity", "requests/s", a.capacity.per_s, b.capacity.per_s, z)]


def _at_load(a: Point, b: Point) -> list[_Test]:
    load = (a.per_s + b.per_s) / 2
    scatter = _scatter_of_good((a, b))
    z = _proportions(a.attainment, a.due, b.attainment, b.due, scatter)
    tests = [_Test(load, "in the SLO", "%", a.attainment * 100, b.attainment * 100, z)]
    for kind, name, scatter in (
        (Latency.TTFT, "TTFT", _scatter_of((a, b), "ttft_s", Latency.TTFT)),
        (Latency.TPOT_THINKING, "TPOT of thoughts", _of_tokens((a, b), Latency.TPOT_THINKING)),
        (Latency.TPOT_ANSWER, "TPOT of answers", _of_tokens((a, b), Latency.TPOT_ANSWER)),
    ):
        tests += _quantiles(load, name, a.latencies[kind], b.latencies[kind], scatter)
    return tests


def _quantiles(load: float, name: str, a: Histogram, b: Histogram, scatter: float) -> list[_Test]:
    """By how many of each run are above the quantile of both together."""
    if not a.count or not b.count:
        return []
    both = Histogram()
    both.merge(a)
    both.merge(b)
    tests = []
    for share in _SHARES:
        if (1 - share) * both.count < _FEW * scatter:
            continue
        at = both.quantile(share)
        z = -_proportions(over(a, at), a.count, over(b, at), b.count, scatter)
        tests.append(
            _Test(load, f"{name} p{share * 100:g}", "s", a.quantile(share), b.quantile(share), z)
        )
    return tests


def _proportions(p: float, n: int, q: float, m: int, scatter: float) -> float:
    """Standard errors by which q is above p."""
    if not n or not m:
        return 0.0
    mean = (p * n + q * m) / (n + m)
    error = math.sqrt(scatter * mean * (1 - mean) * (1 / n + 1 / m))
    return (q - p) / error if error > 0 else 0.0


def _scatter_of_good(pair: Sequence[Point]) -> float:
    chi, free = _SCATTER * _SCATTER_SLICES, _SCATTER_SLICES
    for point in pair:
        for window in point.windows:
            rate = window.good / window.due
            parts = [part for part in window.slices if part.due]
            if 0 < rate < 1 and len(parts) > 2:
                spread = rate * (1 - rate)
                chi += sum((s.good - s.due * rate) ** 2 / (s.due * spread) for s in parts)
                free += len(parts) - 1
    return max(1.0, chi / free)


def _of_tokens(pair: Sequence[Point], kind: Latency) -> float:
    return _scatter_of(pair, "tpot_s", kind)


def _scatter_of(pair: Sequence[Point], name: str, kind: Latency) -> float:
    """Variance of slices' means over that of as many independent requests'."""
    chi, free = _SCATTER * _SCATTER_SLICES, _SCATTER_SLICES
    told = False
    for point in pair:
        variance = _variance(point.latencies[kind])
        parts = [s for w in point.windows for s in w.slices if s.ended]
        many = sum(part.ended for part in parts)
        if variance <= 0 or len(parts) < 3:
            continue
        told = True
        mean = sum(getattr(part, name) for part in parts) / many
        for part in parts:
            off = getattr(part, name) / part.ended - mean
            chi += off**2 * part.ended / variance
        free += len(parts) - 1
    return max(1.0, chi / free) if told else _NO_SLICES


def _variance(histogram: Histogram) -> float:
    """Of the values, from the middles of their buckets."""
    if histogram.count < 2:
        return 0.0
    mean = histogram.mean
    middles = ((math.exp((at + 0.5) * math.log(1.01)), n) for at, n in histogram.buckets.items())
    return sum(n * (middle - mean) ** 2 for middle, n in middles) / histogram.count


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _holm(chances: Sequence[float]) -> list[float]:
    """Holm's correction: as strict as Bonferroni's for the first, milder for the rest."""
    out = [1.0] * len(chances)
    most = 0.0
    for rank, at in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        most = max(most, min(1.0, chances[at] * (len(chances) - rank)))
        out[at] = most
    return out
