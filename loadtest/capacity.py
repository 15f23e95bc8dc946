"""The search for the highest load whose SLO attainment holds: which window to measure next.

Doubles until attainment breaks, then measures where it is undecided, at the middle and near the
ends of what is still possible, until the interval is narrow. Pure: windows in, the next step out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.knee import Knee, find_knee
from loadtest.result import Bottleneck, Capacity, Latency, Slo, Verdict, Window

# How long a window lasts: times the bound of a wait, so that an overload shows; times a request's
# mean life, so that its streams are those of its load; and in requests. First of one that looks.
_LOOK_BOUNDS, _LOOK_LIVES, _LOOK_REQUESTS = 5.0, 2.0, 40.0
_BOUNDS, _LIVES = 60.0, 5.0
_MISSES, _MISSES_MOST = 20.0, 200.0  # that there may be at the knee: as many as they scatter
_SURE, _SURE_MISSES = 2.5, 5  # a window broke for sure that missed so many times what it may
_BRACKET = 1.15  # between what held and what broke: wider, windows only look
_REACH = 0.03  # of the load: how far beyond what held and what broke is measured
_NEAR = 0.05  # what counts as a repeat at the knee
_REPEATS = 8
_PLACES = (0.5, 0.85, 0.25, 0.7)  # of the interval, in turn
_CONFIRMED = 2  # windows that measure a load before it is said to hold
_GENERATOR_TRIES = 3
_ODD = 3.5  # standard errors by which less load was worse than more


@dataclass(frozen=True, slots=True)
class Step:
    """Offer `per_s`; measure `duration_s` once the server is in its stride, after `settle_s`.

    With `drain` what waits from the step before is to end first. Without, the load goes on from
    step to step: near its limit an empty server needs long to fill.
    """

    per_s: float
    duration_s: float
    settle_s: float
    drain: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the search stops. `within` is half the interval's width, as a fraction of the load."""

    least_per_s: float = 0.02
    most_per_s: float = 5000.0
    within: float = 0.045
    windows_max: int = 40
    window_s_min: float = 10.0
    window_s_max: float = 600.0


class Search:
    """One search: `next` and `note` in turn, until `next` is a `Capacity`.

    A step may be measured in parts: each window counts by itself. The same windows give the same
    steps.
    """

    def __init__(
        self, slo: Slo, start_per_s: float | None = None, limits: Limits | None = None
    ) -> None:
        """`start_per_s` saves doublings: a plan's prediction, for instance."""
        assert 0 < slo.share < 1
        assert start_per_s is None or start_per_s > 0
        self._slo = slo
        self._limits = limits or Limits()
        self._start_per_s = start_per_s or 1.0
        self._windows: list[Window] = []
        self._noted = 0
        self._late = 0  # windows of which the generator was the bottleneck
        self._late_at_per_s = math.inf  # the least load of them

    def note(self, window: Window) -> None:
        """What a step measured; an empty window only counts as a try."""
        self._noted += 1
        if window.bottleneck is Bottleneck.GENERATOR:
            self._late += 1
            self._late_at_per_s = min(self._late_at_per_s, window.offered_per_s)
        elif window.due:
            self._windows.append(window)

    def next(self) -> Step | Capacity:
        """The next step, or the answer."""
        if not self._windows:
            return self._begin()
        broke = [window.offered_per_s for window in self._windows if self._broke(window)]
        if len(broke) == len(self._windows):
            return self._lower(min(broke))
        knee = find_knee(self._windows, self._slo.share)
        return self._narrow(knee) if broke else self._higher(knee)

    # --- the stages ------------------------------------------------------------------------------

    def _begin(self) -> Step | Capacity:
        if self._late >= _GENERATOR_TRIES or self._noted >= self._limits.windows_max:
            why = self._generator_words() if self._late else "no request was due in any window"
            return Capacity(Verdict.AT_LEAST, 0.0, 0.0, None, why)
        return self._look(self._start_per_s / 2**self._noted)

    def _lower(self, least_per_s: float) -> Step | Capacity:
        if least_per_s > self._limits.least_per_s and self._noted < self._limits.windows_max:
            return self._look(max(least_per_s / 2, self._limits.least_per_s))
        why = f"attainment is below {self._slo.share:.4g} at {least_per_s:.3g} requests/s too"
        return Capacity(Verdict.NOTHING_HOLDS, 0.0, 0.0, least_per_s, why)

    def _higher(self, knee: Knee) -> Step | Capacity:
        """Nothing broke for sure: higher, or if there is no higher, surely."""
        top = max(self._windows, key=lambda window: window.offered_per_s)
        top_per_s = top.offered_per_s
        spent = self._noted >= self._limits.windows_max
        most_per_s = min(self._limits.most_per_s, self._late_at_per_s)
        if top_per_s < most_per_s * 0.9 and self._late < _GENERATOR_TRIES and not spent:
            factor = 2.0 if self._missed_share([top]) <= 1 - self._slo.share else 1.25
            if math.isfinite(self._late_at_per_s):
                factor = min(factor, math.sqrt(most_per_s / top_per_s))
            return self._look(min(top_per_s * factor, most_per_s))
        there = [window for window in self._windows if window.offered_per_s == top_per_s]
        if sum(map(self._measures, there)) < _CONFIRMED and not spent:
            return self._measure(top_per_s)
        if self._missed_share(there) > 1 - self._slo.share and not spent:
            return self._narrow(knee)
        return self._at_least(top_per_s, min(knee.low_per_s, top_per_s))

    def _narrow(self, knee: Knee) -> Step | Capacity:
        """Some broke for sure, some did not: measure where it is undecided."""
        near = sum(
            abs(window.offered_per_s / knee.per_s - 1) <= _NEAR and self._measures(window)
            for window in self._windows
        )
        if knee.within <= self._limits.within and near >= _REPEATS:
            return self._found(knee, Verdict.FOUND)
        if self._noted >= self._limits.windows_max:
            return self._found(knee, Verdict.WIDE)
        held = max(w.offered_per_s for w in self._windows if not self._broke(w))
        broke = min(w.offered_per_s for w in self._windows if self._broke(w))
        wide = broke > held * _BRACKET
        if wide:
            per_s = math.sqrt(held * broke)
        else:
            place = _PLACES[self._noted % len(_PLACES)]
            per_s = knee.low_per_s ** (1 - place) * knee.high_per_s**place
            per_s = max(per_s, min(held, broke) * (1 - _REACH))
            per_s = min(per_s, max(held, broke) * (1 + _REACH))
        if per_s >= self._late_at_per_s:
            if self._late >= _GENERATOR_TRIES:
                return self._at_least(held, min(knee.low_per_s, held))
            per_s = math.sqrt(min(held, self._late_at_per_s) * self._late_at_per_s)
        return self._look(per_s) if wide else self._measure(per_s, knee.scatter)

    # --- the steps -------------------------------------------------------------------------------

    def _look(self, per_s: float) -> Step:
        return self._step(per_s, _LOOK_REQUESTS, _LOOK_BOUNDS, _LOOK_LIVES)

    def _measure(self, per_s: float, scatter: float = 0.0) -> Step:
        misses = min(max(scatter, _MISSES), _MISSES_MOST)
        return self._step(per_s, misses / (1 - self._slo.share), _BOUNDS, _LIVES)

    def _step(self, per_s: float, requests: float, bounds: float, lives: float) -> Step:
        limits = self._limits
        least_s = max(bounds * self._wait_s(), lives * self._life_s())
        duration_s = max(limits.window_s_min, least_s, min(requests / per_s, limits.window_s_max))
        last = self._windows[-1] if self._windows else None
        drain = last is not None and self._broke(last) and last.offered_per_s > per_s
        settle_s = max(limits.window_s_min / 2, least_s if drain else least_s / 2)
        return Step(per_s, duration_s, settle_s, drain)

    def _measures(self, window: Window) -> bool:
        """Whether a window is long enough to judge a load by."""
        asked = self._measure(window.offered_per_s)
        return window.end_s - window.begin_s >= 0.9 * asked.duration_s

    def _wait_s(self) -> float:
        """How long a request may wait: what a queue must grow to before attainment falls."""
        bounds = (self._slo.ttft_s, self._slo.e2e_s)
        return min((bound for bound in bounds if bound is not None), default=0.0)

    def _life_s(self) -> float:
        """A request's mean, of the windows that did not break."""
        lives = [
            window.latencies[Latency.E2E]
            for window in self._windows
            if Latency.E2E in window.latencies and not self._broke(window)
        ]
        count = sum(life.count for life in lives)
        return sum(life.total for life in lives) / count if count else 0.0

    # --- the answers -----------------------------------------------------------------------------

    def _broke(self, window: Window) -> bool:
        missed = window.due - window.good
        return missed >= max(_SURE_MISSES, _SURE * (1 - self._slo.share) * window.due)

    def _missed_share(self, windows: Sequence[Window]) -> float:
        due = sum(window.due for window in windows)
        return (due - sum(window.good for window in windows)) / due

    def _found(self, knee: Knee, verdict: Verdict) -> Capacity:
        said = {
            Verdict.FOUND: "the interval is",
            Verdict.WIDE: "the windows ended; the interval is",
        }
        why = f"{said[verdict]} within {knee.within:.1%} after {self._noted} windows"
        if odd := odd_windows(self._windows, knee.scatter):
            less, more = odd
            why += (
                f"; attainment did not fall with load: {less.good / less.due:.1%} at "
                f"{less.offered_per_s:.3g}/s, {more.good / more.due:.1%} at "
                f"{more.offered_per_s:.3g}/s: the server changed meanwhile, or does better so"
            )
        return Capacity(verdict, knee.per_s, knee.low_per_s, knee.high_per_s, why)

    def _at_least(self, per_s: float, low_per_s: float) -> Capacity:
        if self._late:
            why = self._generator_words()
        elif self._noted >= self._limits.windows_max:
            why = f"nothing broke in {self._noted} windows"
        else:
            why = f"{per_s:.4g} requests/s held, and no more was to be tried"
        return Capacity(Verdict.AT_LEAST, per_s, low_per_s, None, why)

    def _generator_words(self) -> str:
        return f"the generator was the bottleneck at {self._late_at_per_s:.4g} requests/s"


def odd_windows(windows: Sequence[Window], scatter: float) -> tuple[Window, Window] | None:
    """The two that contradict most that more load is worse: the lower, worse one first."""
    worst, pair = _ODD, None
    for less in windows:
        for more in windows:
            if less.offered_per_s > 0.95 * more.offered_per_s:
                continue
            p, q = (w.good / w.due for w in (less, more))
            mean = (less.good + more.good) / (less.due + more.due)
            error = math.sqrt(scatter * mean * (1 - mean) * (1 / less.due + 1 / more.due))
            if error and (q - p) / error > worst:
                worst, pair = (q - p) / error, (less, more)
    return pair
