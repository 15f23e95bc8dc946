"""What a result says, load by load: windows of the same load added up."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadtest.knee import Knee, find_knee
from loadtest.result import VERSION, Bottleneck, Latency, Result, Slo, Tokens, Verdict, Window
from orchestrator.core import Histogram, SpecError

_SAME = 0.025  # loads that differ by less are one
_CURE = "give a file that `r1-serve bench run` or `bench find-capacity` of this version wrote"


def read_result(path: Path) -> Result:
    """A result with at least one window that has requests. Raises SpecError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}", _CURE) from error
    try:
        version = msgspec.json.decode(text, type=_Versioned).version
    except msgspec.DecodeError as error:
        raise SpecError(f"{path} is no result: {error}", _CURE) from error
    if version != VERSION:
        raise SpecError(f"{path} is a result of version {version}, not {VERSION}", _CURE)
    try:
        result = msgspec.json.decode(text, type=Result)
    except msgspec.DecodeError as error:
        raise SpecError(f"{path} is no result: {error}", _CURE) from error
    if not points(result.windows):
        raise SpecError(
            f"{path} has no window with a request in it", "let the run last longer, or offer more"
        )
    return result


class _Versioned(msgspec.Struct):
    version: int


@dataclass(frozen=True, slots=True)
class Point:
    """All windows of one load."""

    per_s: float
    windows: tuple[Window, ...]
    latencies: dict[Latency, Histogram]
    tokens: Tokens
    errors: Counter[str]

    @property
    def seconds(self) -> float:
        """That were measured."""
        return sum(window.end_s - window.begin_s for window in self.windows)

    @property
    def due(self) -> int:
        """Requests."""
        return sum(window.due for window in self.windows)

    @property
    def ended(self) -> int:
        """Of them, those with an answer that was read to its end."""
        return sum(window.ended for window in self.windows)

    @property
    def attainment(self) -> float:
        """Share of the due that kept the SLO."""
        return sum(window.good for window in self.windows) / max(self.due, 1)

    @property
    def goodput_per_s(self) -> float:
        """Requests per second that kept the SLO."""
        return sum(window.good for window in self.windows) / self.seconds

    @property
    def concurrency(self) -> float:
        """Mean number of open streams."""
        spans = [(w.concurrency, w.end_s - w.begin_s) for w in self.windows]
        return sum(streams * span for streams, span in spans) / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Input and output, of requests that ended."""
        tokens = self.tokens
        return (tokens.prompt + tokens.thinking + tokens.answer) / self.seconds

    @property
    def cached_share(self) -> float:
        """Of the prompts' tokens, those that the server did not compute."""
        return self.tokens.cached / self.tokens.prompt if self.tokens.prompt else 0.0

    @property
    def generator_bound(self) -> bool:
        """Whether the generator was the bottleneck in all of it."""
        return all(window.bottleneck is Bottleneck.GENERATOR for window in self.windows)

    def server(self, name: str) -> float | None:
        """Mean of one of the server's metrics; None if it was not read."""
        seen = [(w.server[name], w.end_s - w.begin_s) for w in self.windows if name in w.server]
        spent = sum(span for _, span in seen)
        return sum(value * span for value, span in seen) / spent if spent else None

    def tpot_s(self) -> float:
        """Mean over streams of the mean time for a token, both phases; 0 of none."""
        streams = [self.latencies[kind] for kind in (Latency.TPOT_THINKING, Latency.TPOT_ANSWER)]
        tokens = (self.tokens.thinking, self.tokens.answer)
        parts = [(h.mean, n) for h, n in zip(streams, tokens, strict=True) if h.count]
        total = sum(n for _, n in parts)
        return sum(mean * n for mean, n in parts) / total if total else 0.0


def points(windows: Sequence[Window]) -> list[Point]:
    """By load. Windows that the generator was the bottleneck of are kept apart from others."""
    groups: list[list[Window]] = []
    kept = [w for w in windows if w.due and w.offered_per_s > 0 and w.end_s > w.begin_s]
    for window in sorted(kept, key=lambda w: (w.bottleneck, w.offered_per_s)):
        last = groups[-1] if groups else None
        if (
            last
            and last[0].bottleneck is window.bottleneck
            and window.offered_per_s <= last[0].offered_per_s * (1 + _SAME)
        ):
            last.append(window)
        else:
            groups.append([window])
    return sorted(map(_point, groups), key=lambda point: point.per_s)


def _point(windows: list[Window]) -> Point:
    latencies = {kind: Histogram() for kind in Latency}
    errors: Counter[str] = Counter()
    tokens = Tokens()
    for window in windows:
        for kind, counts in window.latencies.items():
            latencies[kind].merge(counts.histogram())
        errors.update(window.errors)
        for name in Tokens.__struct_fields__:
            setattr(tokens, name, getattr(tokens, name) + getattr(window.tokens, name))
    spans = [window.end_s - window.begin_s for window in windows]
    asked = sum(w.offered_per_s * span for w, span in zip(windows, spans, strict=True))
    return Point(asked / sum(spans), tuple(windows), latencies, tokens, errors)


def knee_of(result: Result) -> Knee | None:
    """Where attainment crosses its share: what the search found, or what a shape's windows tell.

    None where they do not: nothing broke, nothing held, or all was the generator's.
    """
    windows = [
        window
        for point in points(result.windows)
        for window in point.windows
        if not point.generator_bound
    ]
    capacity, share = result.capacity, result.slo.share
    if capacity is not None and capacity.verdict not in {Verdict.FOUND, Verdict.WIDE}:
        return None
    broke = [w.good < share * w.due for w in windows]
    if not any(broke) or all(broke):
        return None
    fitted = find_knee(windows, share)
    if capacity is None:
        return fitted
    high = capacity.high_per_s or capacity.per_s
    return Knee(capacity.per_s, capacity.low_per_s, high, fitted.slope, fitted.scatter)


def over(histogram: Histogram, bound: float) -> float:
    """Share of the values that are above a bound, right to the width of a bucket."""
    if not histogram.count:
        return 0.0
    at = math.floor(math.log(max(bound, 1e-9)) / math.log(1.01))
    return sum(n for bucket, n in histogram.buckets.items() if bucket > at) / histogram.count


def bounds_text(slo: Slo) -> str:
    """For people."""
    said = []
    for name, bound in (("TTFT", slo.ttft_s), ("time for a token", slo.itl_s), ("E2E", slo.e2e_s)):
        if bound is not None:
            said.append(f"{name} ≤ {bound:g} s" if bound >= 1 else f"{name} ≤ {bound * 1e3:g} ms")
    return ", ".join(said) or "an answer"
