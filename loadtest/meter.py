"""Sums over windows of time: memory does not grow with the requests."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtest.bottleneck import bottleneck_of
from loadtest.result import Counts, Latency, Slice, Slo, Tokens, Window
from orchestrator.core import Histogram

SLICES = 12  # of a window


@dataclass(slots=True)
class Part:
    """The requests that were due in one slice of a window."""

    begin_s: float
    end_s: float
    due: int = 0
    ended: int = 0
    good: int = 0
    ttft_s: float = 0.0  # over those that ended
    tpot_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    tokens: Tokens = field(default_factory=Tokens)
    late: Histogram = field(default_factory=Histogram)
    ttft: Histogram = field(default_factory=Histogram)
    first_answer: Histogram = field(default_factory=Histogram)
    itl_thinking: Histogram = field(default_factory=Histogram)
    itl_answer: Histogram = field(default_factory=Histogram)
    tpot_thinking: Histogram = field(default_factory=Histogram)
    tpot_answer: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)

    @property
    def resolved(self) -> bool:
        """Whether each of its requests has come to its end."""
        return self.due == self.ended + sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Span:
    """A window to be: from, to, and the requests per second that are asked for in it."""

    begin_s: float
    end_s: float
    offered_per_s: float


class WindowMeter:
    """One window: its slices, and what is measured of the whole while its time passes."""

    def __init__(self, span: Span, slices: int = SLICES) -> None:
        self.span = span
        width_s = (span.end_s - span.begin_s) / slices
        edges = [span.begin_s + width_s * number for number in range(slices)]
        self.parts = [Part(begin_s, begin_s + width_s) for begin_s in edges]
        self.lag = Histogram()
        self._width_s = width_s
        self._open = 0
        self._open_s = 0.0  # streams times seconds
        self._at = span.begin_s
        self._closed: Window | None = None

    def close(self, slo: Slo) -> None:
        """Keeps no more than the window, once it is over and resolved."""
        self._closed = self.window(slo, self.span.end_s)
        self.parts = []

    def part(self, due_at: float) -> Part | None:
        """That of an instant; None outside the window."""
        if not self.parts or not self.span.begin_s <= due_at < self.span.end_s:
            return None
        number = int((due_at - self.span.begin_s) / self._width_s)
        return self.parts[min(number, len(self.parts) - 1)]

    def streams(self, open_streams: int, now: float) -> None:
        """From now on so many are open; to be told at every change."""
        now = min(max(now, self.span.begin_s), self.span.end_s)
        self._open_s += self._open * (now - self._at)
        self._open, self._at = open_streams, now

    @property
    def resolved(self) -> bool:
        """Whether each of its requests has come to its end."""
        return all(part.resolved for part in self.parts)

    def window(self, slo: Slo, now: float) -> Window | None:
        """What was measured by now: of a window that was left early, the slices that had ended and
        whose requests have all come to their end; None without such a slice.
        """
        if self._closed is not None:
            return self._closed
        self.streams(self._open, now)
        parts = _whole(self.parts, now)
        if not parts:
            return None
        end_s = parts[-1].end_s
        seen_s = max(self._at - self.span.begin_s, 1e-9)
        late = _merged(part.late for part in parts)
        latencies = {
            latency: _merged(getattr(part, latency.value) for part in parts) for latency in Latency
        }
        window = Window(
            offered_per_s=self.span.offered_per_s,
            begin_s=self.span.begin_s,
            end_s=end_s,
            due=sum(part.due for part in parts),
            ended=sum(part.ended for part in parts),
            good=sum(part.good for part in parts),
            errors=dict(sum((part.errors for part in parts), Counter())),
            latencies={latency: Counts.of(each) for latency, each in latencies.items()},
            tokens=tokens_of([part.tokens for part in parts]),
            slices=[
                Slice(part.due, part.good, part.ended, part.ttft_s, part.tpot_s) for part in parts
            ],
            concurrency=self._open_s / seen_s,
            lag=Counts.of(self.lag),
            late=Counts.of(late),
        )
        window.bottleneck = bottleneck_of(window, slo)
        return window


def tokens_of(parts: Sequence[Tokens]) -> Tokens:
    """Their sum."""
    return Tokens(
        *(
            sum(getattr(part, name) for part in parts)
            for name in ("prompt", "cached", "thinking", "answer", "asked_prompt")
        )
    )


def _whole(parts: Sequence[Part], now: float) -> list[Part]:
    """The first ones, as long as they have ended and are resolved."""
    whole = []
    for part in parts:
        if part.end_s > now + 1e-9 or not part.resolved:
            break
        whole.append(part)
    return whole


def _merged(histograms: Iterable[Histogram]) -> Histogram:
    total = Histogram()
    for each in histograms:
        total.merge(each)
    return total
