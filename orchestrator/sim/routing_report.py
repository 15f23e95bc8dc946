"""What a played trace says of a policy, in seconds, and beside the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.sim.fleet import Played


@dataclass(frozen=True, slots=True)
class Scores:
    """One policy on one trace. Times in seconds; `busiest` is the most requests over the mean."""

    hit: float
    ttft_s_mean: float
    ttft_s_p50: float
    ttft_s_p99: float
    tpot_s_mean: float
    e2e_s_mean: float
    busiest: float
    busiest_prefill: float


def scores(played: Played) -> Scores:
    """The figures of a run."""
    jobs = played.jobs
    ttft = sorted(job.first_at - job.arrived_at for job in jobs)
    tpot = [
        (job.ended_at - job.first_at) / (job.output_tokens - 1)
        for job in jobs
        if job.output_tokens > 1
    ]
    counts = [0] * len(played.busy_s)
    for job in jobs:
        counts[job.rank] += 1
    prompt_tokens = sum(len(job.prompt_ids) for job in jobs)
    return Scores(
        hit=sum(job.cached_tokens for job in jobs) / prompt_tokens,
        ttft_s_mean=_mean(ttft),
        ttft_s_p50=quantile(ttft, 0.50),
        ttft_s_p99=quantile(ttft, 0.99),
        tpot_s_mean=_mean(tpot) if tpot else 0.0,
        e2e_s_mean=_mean([job.ended_at - job.arrived_at for job in jobs]),
        busiest=max(counts) / _mean(counts),
        busiest_prefill=max(played.busy_s) / _mean(played.busy_s),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of an ordered, non-empty sequence does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
