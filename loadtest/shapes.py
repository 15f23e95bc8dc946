"""How the rate of arrivals goes up and down, and the windows in which that is looked at."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from loadtest.meter import Span

_DAY_KNOTS = 96  # a quarter of an hour each


@dataclass(frozen=True, slots=True)
class Shape:
    """Rates in requests per second, straight between knots of (second, rate), then as the last.

    Two knots at one instant are a jump. `edges` are instants where a window must end.
    """

    knots: tuple[tuple[float, float], ...]
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert self.knots
        assert self.knots[0][0] == 0.0
        assert all(early[0] <= late[0] for early, late in pairwise(self.knots))
        assert self.knots[-1][1] > 0

    @property
    def end_s(self) -> float:
        """Where the last knot is."""
        return self.knots[-1][0]

    def expected(self, at_s: float) -> float:
        """Requests until an instant, on average."""
        return Passage(self).expected(at_s)

    def at(self, at_s: float) -> float:
        """The rate at an instant; at a jump, the later one."""
        at = bisect_right(self.knots, at_s, key=lambda knot: knot[0]) - 1
        (begin_s, low), (end_s, high) = self.knots[at], self.knots[min(at + 1, len(self.knots) - 1)]
        return low + (high - low) * (at_s - begin_s) / (end_s - begin_s) if end_s > begin_s else low

    def mean_per_s(self, begin_s: float, end_s: float) -> float:
        """Requests per second between two instants, on average."""
        passage = Passage(self)
        return (passage.expected(end_s) - passage.expected(begin_s)) / (end_s - begin_s)

    def spans(self, window_s: float, begin_s: float = 0.0) -> list[Span]:
        """Windows from `begin_s` to the end, of this length or a little less: none crosses an
        edge.
        """
        edges = sorted({begin_s, self.end_s, *(e for e in self.edges if begin_s < e < self.end_s)})
        spans = []
        for low, high in pairwise(edges):
            parts = max(1, math.ceil((high - low) / window_s - 1e-9))
            cuts = [low + (high - low) * part / parts for part in range(parts)] + [high]
            spans += [Span(a, b, self.mean_per_s(a, b)) for a, b in pairwise(cuts)]
        return spans


class Passage:
    """The clock of a shape: how many requests have come by an instant, and when so many have."""

    def __init__(self, shape: Shape) -> None:
        self._times = [at_s for at_s, _ in shape.knots]
        self._rates = [rate for _, rate in shape.knots]
        self._counts = [0.0]
        for (begin_s, low), (end_s, high) in pairwise(shape.knots):
            self._counts.append(self._counts[-1] + (low + high) / 2 * (end_s - begin_s))

    def expected(self, at_s: float) -> float:
        """Requests until an instant, on average."""
        at = bisect_right(self._times, at_s) - 1
        passed_s = at_s - self._times[at]
        return self._counts[at] + passed_s * (self._rates[at] + self._slope(at) / 2 * passed_s)

    def instant(self, count: float) -> float:
        """When so many are expected to have come: the first such instant."""
        at = bisect_right(self._counts, count) - 1
        rest = count - self._counts[at]
        rate, slope = self._rates[at], self._slope(at)
        # The root of `rate * t + slope / 2 * t * t = rest`, as it is stable where slope is 0.
        below = rate + math.sqrt(max(0.0, rate * rate + 2 * slope * rest))
        return self._times[at] + (2 * rest / below if below > 0 else 0.0)

    def _slope(self, at: int) -> float:
        if at + 1 >= len(self._times) or self._times[at + 1] == self._times[at]:
            return 0.0
        return (self._rates[at + 1] - self._rates[at]) / (self._times[at + 1] - self._times[at])


def soak(per_s: float, duration_s: float) -> Shape:
    """The same rate all the time."""
    return Shape(((0.0, per_s), (duration_s, per_s)))


def ramp(low_per_s: float, high_per_s: float, duration_s: float) -> Shape:
    """From one rate to another, straight."""
    return Shape(((0.0, low_per_s), (duration_s, high_per_s)))


def step(low_per_s: float, high_per_s: float, duration_s: float, steps: int = 5) -> Shape:
    """Equal steps from one rate to another, each as long as the others."""
    assert steps >= 2
    knots: list[tuple[float, float]] = []
    for number in range(steps):
        rate = low_per_s + (high_per_s - low_per_s) * number / (steps - 1)
        knots.append((duration_s * number / steps, rate))
        knots.append((duration_s * (number + 1) / steps, rate))
    return Shape(tuple(knots), tuple(at_s for at_s, _ in knots[2::2]))


def spike(base_per_s: float, peak_per_s: float, duration_s: float) -> Shape:
    """A peak in the middle fifth, with jumps."""
    begin_s, end_s = 0.4 * duration_s, 0.6 * duration_s
    return Shape(
        (
            (0.0, base_per_s),
            (begin_s, base_per_s),
            (begin_s, peak_per_s),
            (end_s, peak_per_s),
            (end_s, base_per_s),
            (duration_s, base_per_s),
        ),
        (begin_s, end_s),
    )


def day(low_per_s: float, high_per_s: float, duration_s: float) -> Shape:
    """A night, a noon and a night: one turn of a sine, however long the day is made."""
    mean, swing = (low_per_s + high_per_s) / 2, (high_per_s - low_per_s) / 2
    return Shape(
        tuple(
            (
                duration_s * number / _DAY_KNOTS,
                mean - swing * math.cos(2 * math.pi * number / _DAY_KNOTS),
            )
            for number in range(_DAY_KNOTS + 1)
        )
    )


def made(name: str, low_per_s: float, high_per_s: float, duration_s: float) -> Shape:
    """The shape of a name: soak, ramp, step, spike or day."""
    if name == "soak":
        return soak(high_per_s, duration_s)
    return _BY_NAME[name](low_per_s, high_per_s, duration_s)


_BY_NAME: Mapping[str, Callable[[float, float, float], Shape]] = {
    "ramp": ramp,
    "step": step,
    "spike": spike,
    "day": day,
}
