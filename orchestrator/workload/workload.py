"""What a fleet is asked to carry: arrivals, lengths, and how much of the prompts repeats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

BLOCK_TOKENS = 512  # of one hash id; Mooncake, FAST25-release/README.md
PEAK_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens the prompts, or the outputs, of requests have."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How often requests come. `peak_requests_per_s` is that of the busiest window."""

    requests_per_s: float
    peak_requests_per_s: float
    gap_cv: float  # standard deviation of the gaps over their mean; 1 is Poisson


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of traffic, summarised."""

    name: str
    source: str  # where the numbers are from
    input_tokens: Lengths
    output_tokens: Lengths
    # Tokens of context that an average decode step of an average request reads: longer than the
    # average request's, since long outputs take more of the steps.
    decode_context_tokens: float
    prefix_hit: float  # fraction of input tokens whose KV is there already
    arrivals: Arrivals | None = None  # None: as much as the fleet can carry


class TraceRequest(NamedTuple):
    """One line of a trace; `hash_ids` name its blocks of BLOCK_TOKENS, each with all before it."""

    at_s: float
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    thinking_tokens: int = 0  # of the output; 0: not known
    klass: str = ""  # of service


def constant(
    name: str,
    source: str,
    *,
    input_tokens: float,
    output_tokens: float,
    prefix_hit: float = 0.0,
    requests_per_s: float | None = None,
) -> Workload:
    """A workload whose requests all have these lengths; arrivals, if any, are Poisson."""
    return Workload(
        name,
        source,
        _constant(input_tokens),
        _constant(output_tokens),
        input_tokens + output_tokens / 2,
        prefix_hit,
        None if requests_per_s is None else Arrivals(requests_per_s, requests_per_s, 1.0),
    )


def at_rate(workload: Workload, requests_per_s: float) -> Workload:
    """The same requests at another mean rate; the peak moves with it."""
    was = workload.arrivals
    if was is None:
        return replace(workload, arrivals=Arrivals(requests_per_s, requests_per_s, 1.0))
    factor = requests_per_s / was.requests_per_s
    arrivals = replace(
        was,
        requests_per_s=requests_per_s,
        peak_requests_per_s=was.peak_requests_per_s * factor,
    )
    return replace(workload, arrivals=arrivals)


def summarise(name: str, source: str, requests: Sequence[TraceRequest]) -> Workload:
    """The workload of at least two requests, whose instants need not be in order.

    The prefix hit is what a cache that never forgets, shared by all ranks, would have: a bound.
    """
    assert len(requests) >= 2
    ordered = sorted(requests, key=lambda request: request.at_s)
    inputs = [request.input_tokens for request in ordered]
    outputs = [request.output_tokens for request in ordered]
    steps = sum(outputs)
    context = sum((r.input_tokens + r.output_tokens / 2) * r.output_tokens for r in ordered)
    return Workload(
        name,
        source,
        _lengths(inputs),
        _lengths(outputs),
        context / steps if steps else sum(inputs) / len(inputs),
        _prefix_hit(ordered),
        _arrivals([request.at_s for request in ordered]),
    )


def _constant(tokens: float) -> Lengths:
    return Lengths(tokens, tokens, tokens, tokens, tokens)


def _lengths(values: Sequence[int]) -> Lengths:
    ordered = sorted(values)
    p50, p90, p99 = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.5, 0.9, 0.99))
    return Lengths(sum(ordered) / len(ordered), p50, p90, p99, ordered[-1])


def _prefix_hit(requests: Sequence[TraceRequest]) -> float:
    seen: set[int] = set()
    hit_tokens = 0
    for request in requests:
        blocks = 0
        for hash_id in request.hash_ids:
            if hash_id not in seen:
                break
            blocks += 1
        hit_tokens += min(blocks * BLOCK_TOKENS, request.input_tokens)
        seen.update(request.hash_ids)
    tokens = sum(request.input_tokens for request in requests)
    return hit_tokens / tokens if tokens else 0.0


def _arrivals(instants: Sequence[float]) -> Arrivals | None:
    """None if all came at the same instant."""
    duration_s = instants[-1] - instants[0]
    if duration_s <= 0:
        return None
    gaps = [late - early for early, late in pairwise(instants)]
    mean = duration_s / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    rate = len(gaps) / duration_s
    peak = rate
    if duration_s > PEAK_WINDOW_S:
        counts: dict[int, int] = {}
        for at in instants:
            window = int((at - instants[0]) // PEAK_WINDOW_S)
            counts[window] = counts.get(window, 0) + 1
        peak = max(rate, max(counts.values()) / PEAK_WINDOW_S)
    return Arrivals(rate, peak, math.sqrt(variance) / mean)
