"""What a simulated day was like, added up as it goes: memory does not grow with the requests."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core import Histogram
from orchestrator.sim.call import Call, Outcome

_BUCKETS_MAX = 240  # of the timeline; then two become one


@dataclass(frozen=True, slots=True)
class Bounds:
    """The SLO of one class of service; None: unbounded. TPOT is a request's mean ITL."""

    ttft_s: float | None = None
    tpot_s: float | None = None

    def keeps(self, ttft_s: float, tpot_s: float) -> bool:
        """Whether a request that ended well is within all bounds."""
        return (self.ttft_s is None or ttft_s <= self.ttft_s) and (
            self.tpot_s is None or tpot_s <= self.tpot_s
        )


@dataclass(slots=True)
class ClassScore:
    """Requests of one class of service."""

    ended: int = 0
    kept: int = 0  # ended well and within the SLO
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Timeline:
    """Sums in equal spans of time from 0 on, at most so many of them."""

    span_s: float = 1.0
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, at: float, amount: float) -> None:
        """At an instant."""
        while at >= self.span_s * _BUCKETS_MAX:
            self._widen()
        spans = self.sums.setdefault(name, [])
        index = int(at / self.span_s)
        if index >= len(spans):
            spans.extend([0.0] * (index + 1 - len(spans)))
        spans[index] += amount

    def spread(self, name: str, begins: float, ends: float, amount: float) -> None:
        """Evenly over a time."""
        first, last = int(begins / self.span_s), int(ends / self.span_s)
        if first == last or ends <= begins:
            self.add(name, ends, amount)
            return
        rate = amount / (ends - begins)
        at = begins
        for index in range(first, last + 1):
            until = min(ends, (index + 1) * self.span_s)
            self.add(name, at, rate * (until - at))
            at = until

    def _widen(self) -> None:
        self.span_s *= 2
        for name, spans in self.sums.items():
            self.sums[name] = [sum(spans[at : at + 2]) for at in range(0, len(spans), 2)]


@dataclass(slots=True)
class Meter:
    """All figures of one run. Times in seconds."""

    bounds: Mapping[str, Bounds] = field(default_factory=dict)  # by class; "" is of all others
    ttft: Histogram = field(default_factory=Histogram)
    answer: Histogram = field(
        default_factory=Histogram
    )  # arrival to the first token behind </think>
    tpot: Histogram = field(default_factory=Histogram)
    itl: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    classes: dict[str, ClassScore] = field(default_factory=dict)
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)  # event, reason
    causes: Counter[str] = field(default_factory=Counter)  # of what did not end well
    notes: list[tuple[float, str]] = field(default_factory=list)  # faults and repairs
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    busy_s: dict[str, float] = field(default_factory=dict)  # GPU-seconds by role
    line: Timeline = field(default_factory=Timeline)
    in_flight_s: float = 0.0  # requests times seconds
    last_end_at: float = 0.0
    held_s: dict[str, float] = field(default_factory=dict)  # GPU-seconds by role, idle or not

    def ended(self, call: Call, outcome: Outcome, cause: str, now: float) -> None:
        """A request has its end."""
        self.outcomes[outcome] += 1
        self.last_end_at = now
        score = self.classes.setdefault(call.klass, ClassScore())
        score.ended += 1
        self.in_flight_s += now - call.at_s
        self.line.add("ended", now, 1)
        if outcome is not Outcome.FINISHED:
            self.causes[f"{outcome}: {cause}"] += 1
            self.line.add("lost", now, 1)
            return
        ttft_s = call.first_at - call.at_s
        tpot_s = (now - call.first_at) / (call.emitted - 1) if call.emitted > 1 else 0.0
        self.ttft.add(ttft_s)
        if call.emitted > 1:
            self.tpot.add(tpot_s)
        self.e2e.add(now - call.at_s)
        if 0 < call.thinking_tokens < call.emitted:
            self.answer.add(ttft_s + call.thinking_tokens * tpot_s)
        self.prompt_tokens += call.prompt_tokens
        self.cached_tokens += min(call.cached_tokens, call.prompt_tokens)
        self.output_tokens += call.emitted
        score.prompt_tokens += call.prompt_tokens
        score.output_tokens += call.emitted
        bounds = self.bounds.get(call.klass) or self.bounds.get("") or Bounds()
        if bounds.keeps(ttft_s, tpot_s):
            score.kept += 1
            self.line.add("kept", now, 1)
