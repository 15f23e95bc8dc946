"""What gateways measure of the requests that come; the input of scaling."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.spec import StepCosts

WINDOW_S = 60.0  # that arrivals are counted over
_SPANS = 6
_SPAN_S = WINDOW_S / _SPANS
_REQUESTS = 1024  # that means remember: lengths that vary by their mean are known to some 2 %


@dataclass(frozen=True, slots=True)
class Observation:
    """One model's requests, at one gateway or at all of them.

    `requests_per_s` counts those that are shed too: they are asked for. `prefill_s` and
    `prefill_s2` are the mean, and the mean of the squares, of what a request costs a prefill rank;
    0 of a mean says that there has been no request yet, 0 of `kv_tokens` that no rank is known.
    """

    requests_per_s: float = 0.0
    prefill_s: float = 0.0
    prefill_s2: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0  # of requests that have ended
    running: float = 0.0  # admitted and not ended
    waiting: float = 0.0  # not admitted
    kv_tokens: float = 0.0  # that a rank which decodes has room for


class Meter:
    """Counts one gateway's requests. Instants are of any clock that does not go back."""

    def __init__(self) -> None:
        self._began_at: float | None = None  # when it was first used
        self._spans: deque[list[int]] = deque()  # number of the span, arrivals in it
        self._came = 0
        self._went = 0
        self._cached = 0.0  # share of prompt tokens
        self._means = Observation()

    def arrived(self, prompt_tokens: int, costs: StepCosts, now: float) -> None:
        """A request has come, whatever becomes of it; `costs` are those of a rank that prefills."""
        self._begins(now)
        span = int(now // _SPAN_S)
        if not self._spans or self._spans[-1][0] != span:
            self._spans.append([span, 0])
            self._forget(span)
        self._spans[-1][1] += 1
        self._came += 1
        part = 1 / min(self._came, _REQUESTS)
        cost_s = costs.prefill_s(prompt_tokens, int(self._cached * prompt_tokens))
        means = self._means
        self._means = replace(
            means,
            prompt_tokens=means.prompt_tokens + part * (prompt_tokens - means.prompt_tokens),
            prefill_s=means.prefill_s + part * (cost_s - means.prefill_s),
            prefill_s2=means.prefill_s2 + part * (cost_s * cost_s - means.prefill_s2),
        )

    def ended(self, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> None:
        """A request has ended; those that failed before their first token say nothing."""
        if not output_tokens:
            return
        self._went += 1
        part = 1 / min(self._went, _REQUESTS)
        share = min(1.0, cached_tokens / max(prompt_tokens, 1))
        self._cached += part * (share - self._cached)
        mean = self._means.output_tokens
        self._means = replace(self._means, output_tokens=mean + part * (output_tokens - mean))

    @property
    def output_tokens(self) -> float:
        """Of a usual request; 0: none has ended."""
        return self._means.output_tokens

    def read(self, running: int, waiting: int, kv_tokens: int, now: float) -> Observation:
        """What was measured by now; the rest of it is what the gateway holds at the moment."""
        span = int(now // _SPAN_S)
        self._forget(span)
        arrivals = sum(count for _, count in self._spans)
        # Whole spans, and the one under way.
        since = max(self._begins(now), (span - _SPANS) * _SPAN_S)
        return replace(
            self._means,
            requests_per_s=arrivals / max(_SPAN_S, now - since),
            running=running,
            waiting=waiting,
            kv_tokens=kv_tokens,
        )

    def _begins(self, now: float) -> float:
        if self._began_at is None:
            self._began_at = now
        return self._began_at

    def _forget(self, span: int) -> None:
        while self._spans and self._spans[0][0] < span - _SPANS:
            self._spans.popleft()


def together(seen: Sequence[Observation]) -> Observation:
    """What several gateways have measured: sums, and means by how much each has measured."""
    rate = sum(each.requests_per_s for each in seen)

    def mean(name: str) -> float:
        parts = [(getattr(each, name), each.requests_per_s) for each in seen]
        parts = [(value, weight or 1e-9) for value, weight in parts if value > 0]
        weights = sum(weight for _, weight in parts)
        return sum(value * weight for value, weight in parts) / weights if parts else 0.0

    return Observation(
        requests_per_s=rate,
        prefill_s=mean("prefill_s"),
        prefill_s2=mean("prefill_s2"),
        prompt_tokens=mean("prompt_tokens"),
        output_tokens=mean("output_tokens"),
        running=sum(each.running for each in seen),
        waiting=sum(each.waiting for each in seen),
        kv_tokens=max((each.kv_tokens for each in seen), default=0.0),
    )
