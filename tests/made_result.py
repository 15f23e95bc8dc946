"""Results of a load test that nobody ran: a server that is a plan's fleet, with other factors."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loadtest.result import VERSION, Counts, Latency, Result, Slice, Slo, Tokens, Window
from orchestrator.cli.simulate_run import read_plan
from orchestrator.core import Histogram, Role
from orchestrator.perf import Factors, OpenLoop, Traffic, disaggregated, shipped_factors, unified

PROMPT, THINKING, ANSWER = 2000, 600, 400
SLO = Slo(ttft_s=2.0, itl_s=0.05, share=0.95)


def slower(factor: float) -> Factors:
    """The shipped factors of an engine whose steps all take so many times as long."""
    shipped = shipped_factors()
    pace = {**shipped.multipliers["pace"]}
    pace["vllm"] = pace["vllm"] * factor
    return replace(shipped, multipliers={**shipped.multipliers, "pace": pace})


@dataclass(frozen=True, slots=True)
class Served:
    """Means of what the made server does at a load."""

    ttft_s: float
    tpot_s: float
    concurrency: float


def served(plan_path: Path, per_s: Sequence[float], factors: Factors) -> list[Served]:
    """By the closed form of the plan's fleet."""
    plan = read_plan(plan_path, 0)
    grids = dict(zip((p.model.role for p in plan.pools), plan.grids, strict=True))
    gangs = {p.model.role: p.replicas for p in plan.pools}
    traffic = Traffic(PROMPT, THINKING + ANSWER)
    load = OpenLoop(np.asarray(per_s, dtype=float))
    if Role.UNIFIED in grids:
        seen = unified(grids[Role.UNIFIED], gangs[Role.UNIFIED], traffic, load, factors)
    else:
        seen = disaggregated(
            grids[Role.PREFILL],
            gangs[Role.PREFILL],
            grids[Role.DECODE],
            gangs[Role.DECODE],
            traffic,
            load,
            factors,
        )
    return [
        Served(float(seen.ttft_s[i]), float(seen.tpot_s[i]), float(seen.concurrency[i]))
        for i in range(len(per_s))
    ]


def made_window(
    per_s: float, does: Served, draw: random.Random, slo: Slo = SLO, seconds: float = 120.0
) -> Window:
    """Requests whose TTFT has an exponential tail and whose pace varies by some per cent."""
    seen = {kind: Histogram() for kind in Latency}
    slices = []
    good = due = 0
    for _ in range(12):
        part = Slice(0, 0)
        for _ in range(_poisson(per_s * seconds / 12, draw)):
            part.due += 1
            ttft_s = does.ttft_s * (0.5 + draw.expovariate(2.0))
            tpot_s = does.tpot_s * math.exp(draw.gauss(0.0, 0.08))
            thought_s = tpot_s * (THINKING - 1)
            seen[Latency.TTFT].add(ttft_s)
            seen[Latency.FIRST_ANSWER].add(ttft_s + thought_s + tpot_s)
            seen[Latency.TPOT_THINKING].add(tpot_s)
            seen[Latency.TPOT_ANSWER].add(tpot_s)
            seen[Latency.ITL_THINKING].add(tpot_s * draw.uniform(0.8, 1.3), 20)
            seen[Latency.ITL_ANSWER].add(tpot_s * draw.uniform(0.8, 1.3), 20)
            seen[Latency.E2E].add(ttft_s + tpot_s * (THINKING + ANSWER - 1))
            part.ended += 1
            part.ttft_s += ttft_s
            part.tpot_s += tpot_s
            kept = (slo.ttft_s is None or ttft_s <= slo.ttft_s) and (
                slo.itl_s is None or tpot_s <= slo.itl_s
            )
            part.good += kept
        due += part.due
        good += part.good
        slices.append(part)
    busy = min(1.0, does.concurrency / 400)
    return Window(
        offered_per_s=per_s,
        begin_s=0.0,
        end_s=seconds,
        due=due,
        ended=due,
        good=good,
        errors={},
        latencies={kind: Counts.of(histogram) for kind, histogram in seen.items()},
        tokens=Tokens(PROMPT * due, 0, THINKING * due, ANSWER * due),
        slices=slices,
        concurrency=does.concurrency,
        lag=Counts(0, 0.0, 0.0, {}),
        late=Counts(0, 0.0, 0.0, {}),
        server={
            "r1_gpu_sm_active_ratio": 0.3 + 0.65 * busy,
            "r1_gpu_dram_active_ratio": 0.25 + 0.5 * busy,
            "r1_rank_kv_ratio": busy,
        },
    )


def _poisson(mean: float, draw: random.Random) -> int:
    return max(0, round(draw.gauss(mean, math.sqrt(mean))))


def made_result(
    plan_path: Path,
    loads: Sequence[float],
    factors: Factors | None = None,
    seed: int = 0,
    slo: Slo = SLO,
) -> Result:
    """One window a load, of those that the made server is not saturated at."""
    draw = random.Random(seed)
    factors = factors or shipped_factors()
    does = served(plan_path, loads, factors)
    pairs = [pair for pair in zip(loads, does, strict=True) if math.isfinite(pair[1].ttft_s)]
    return Result(
        version=VERSION,
        began_at="2026-01-05T09:00:00Z",
        url="http://r1.example:8000",
        model="DeepSeek-R1-0528",
        workload="chat",
        command=["r1-serve", "bench", "find-capacity", "http://r1.example:8000"],
        seed=seed,
        workers=1,
        slo=slo,
        windows=[made_window(per_s, one, draw, slo) for per_s, one in pairs],
    )
