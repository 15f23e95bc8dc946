"""A fleet under load: from step times to TTFT, TPOT and rates, by Little's law.

The decode batch is the unknown. A larger batch serves more requests a second and holds more of
them, so the batch at which the requests in the system are those that the load says is found by
bisection, for all points at once.
"""

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from orchestrator.perf.factors import Efficiency, Factors, shipped_factors
from orchestrator.perf.layout import Array, LayoutGrid
from orchestrator.perf.ledger import ledger
from orchestrator.perf.point import Point
from orchestrator.perf.step import StepTime, decode_pass, prefill_pass
from orchestrator.perf.traffic import ClosedLoop, Load, OpenLoop, Prediction, Traffic

_HALVINGS = 40  # of the batch's interval, in its logarithm: to 1e-9 of its width


def efficiency(grid: LayoutGrid, factors: Factors | None = None) -> Efficiency:
    """The factors that hold for a grid."""
    factors = factors or shipped_factors()
    return factors.of(grid.hardware.generation, grid.engine, grid.precision.experts.value)


def decode_step(
    grid: LayoutGrid, batch_per_rank: Array, context_tokens: Array, factors: Factors | None = None
) -> StepTime:
    """One decode step; see `decode_pass`."""
    batch, context = (np.asarray(x, dtype=float) for x in (batch_per_rank, context_tokens))
    return decode_pass(Point.of(grid), efficiency(grid, factors), batch, context)


def prefill_step(
    grid: LayoutGrid, tokens: Array, context_tokens: Array, factors: Factors | None = None
) -> StepTime:
    """One prefill pass over `tokens` a rank after `context_tokens` on average; see `prefill_pass`."""
    tokens, context = (np.asarray(x, dtype=float) for x in (tokens, context_tokens))
    return prefill_pass(Point.of(grid), efficiency(grid, factors), tokens, context)


@dataclass(frozen=True, slots=True)
class Prefill:
    """What prefill costs a gang."""

    prompt_s: Array  # one prompt alone
    work_s: Array  # of the gang's time, for each prompt when there are many: 1 / prompts a second


def prefill_cost(p: Point, e: Efficiency, traffic: Traffic) -> Prefill:
    """Time of one prompt, and the gang's time for each of many."""
    prompt = np.asarray(traffic.input_tokens, dtype=float)
    cached = prompt * traffic.prefix_hit
    fresh = np.maximum(prompt - cached, 1.0)
    seen = cached + fresh / 2
    passes = np.ceil(fresh / p.chunk_tokens)
    alone = prefill_pass(p, e, fresh / passes, seen, active_ranks=np.ones_like(p.dp)).total_s
    prompt_s = alone * (passes + p.pp - 1) / p.pp
    full = prefill_pass(p, e, p.chunk_tokens, seen).total_s / p.pp
    work_s = full * fresh / (p.chunk_tokens * p.dp)
    return Prefill(prompt_s, np.minimum(work_s, prompt_s))


def unified(
    grid: LayoutGrid,
    gangs: Array | float,
    traffic: Traffic,
    load: Load,
    factors: Factors | None = None,
) -> Prediction:
    """`gangs` gangs that prefill and decode on the same GPUs."""
    p, e = Point.of(grid), efficiency(grid, factors)
    rows = ledger(grid)
    context = traffic.input_tokens + np.asarray(traffic.output_tokens) / 2
    limit = np.maximum(rows.kv_tokens_per_rank / context, 0.0)
    return solve_unified(p, e, np.asarray(gangs, dtype=float), traffic, load, limit)


def solve_unified(
    p: Point, e: Efficiency, gangs: Array, traffic: Traffic, load: Load, batch_max: Array
) -> Prediction:
    """The same on points; `batch_max` sequences have room on a rank."""
    output = np.asarray(traffic.output_tokens, dtype=float)
    context = traffic.input_tokens + output / 2
    prefill = prefill_cost(p, e, traffic)
    accepted = traffic.accepted(p.drafts)
    steps = np.maximum(output - 1, 1.0) / accepted
    others = 1.0
    if isinstance(load, ClosedLoop):  # of the requests in the system, one is oneself
        per_gang = np.asarray(load.concurrency, dtype=float) / gangs
        others = np.maximum(1 - 1 / np.maximum(per_gang, 1.0), 0.0)

    def state(batch: Array) -> "_State":
        step = decode_pass(p, e, batch, context).total_s
        in_gang = batch * p.dp
        stalled = e.stall * others * in_gang * prefill.work_s / steps
        request_s = (step + stalled) * steps
        rate = in_gang / request_s
        busy = np.minimum(rate * prefill.work_s, 0.999)
        wait = 0.5 * step + prefill.prompt_s * busy * others / (1 - busy)
        return _State(e.first_token_s + prefill.prompt_s + wait, request_s, rate * gangs, busy)

    return _solve(p, gangs, gangs * p.tp * p.pp * p.dp, traffic, load, batch_max, state)


def disaggregated(
    prefill_grid: LayoutGrid,
    prefill_gangs: Array | float,
    decode_grid: LayoutGrid,
    decode_gangs: Array | float,
    traffic: Traffic,
    load: Load,
    factors: Factors | None = None,
) -> Prediction:
    """Prefill gangs that hand over to decode gangs; the grids' shapes broadcast against each other."""
    context = traffic.input_tokens + np.asarray(traffic.output_tokens) / 2
    limit = np.maximum(ledger(decode_grid).kv_tokens_per_rank / context, 0.0)
    return solve_disaggregated(
        (
            Point.of(prefill_grid),
            efficiency(prefill_grid, factors),
            np.asarray(prefill_gangs, float),
        ),
        (Point.of(decode_grid), efficiency(decode_grid, factors), np.asarray(decode_gangs, float)),
        traffic,
        load,
        limit,
    )


Pool = tuple[Point, Efficiency, Array]  # with the number of its gangs


def solve_disaggregated(
    prefill_pool: Pool, decode_pool: Pool, traffic: Traffic, load: Load, batch_max: Array
) -> Prediction:
    """The same on points; `batch_max` sequences have room on a decode rank."""
    pp, pe, prefill_gangs = prefill_pool
    dp, de, decode_gangs = decode_pool
    output = np.asarray(traffic.output_tokens, dtype=float)
    context = traffic.input_tokens + output / 2
    prefill = prefill_cost(pp, pe, traffic)
    steps = np.maximum(output - 1, 1.0) / traffic.accepted(dp.drafts)
    transfer = (
        transfer_s(pp, pe, np.asarray(traffic.input_tokens, dtype=float))
        if traffic.kv_transfer
        else 0.0
    )
    capacity = prefill_gangs / prefill.work_s

    def state(batch: Array) -> "_State":
        step = decode_pass(dp, de, batch, context).total_s
        request_s = step * steps
        rate = batch * dp.dp * decode_gangs / request_s
        busy = rate / capacity
        within = np.minimum(busy, 0.999)
        # An M/D/c queue: with more gangs a wait is rarer.
        wait = (
            prefill.work_s
            * within ** (np.sqrt(2 * (prefill_gangs + 1)) - 1)
            / (2 * prefill_gangs * (1 - within))
        )
        wait = np.where(busy < 1, wait, np.inf)
        ttft = pe.first_token_s + prefill.prompt_s + wait + transfer + step
        return _State(ttft, request_s, rate, busy)

    gpus = prefill_gangs * pp.tp * pp.pp * pp.dp + decode_gangs * dp.tp * dp.pp * dp.dp
    return _solve(dp, decode_gangs, gpus, traffic, load, batch_max, state)


def transfer_s(p: Point, e: Efficiency, prompt_tokens: Array) -> Array:
    """Moving a prompt's KV between nodes: a rank's TP GPUs send their share of it at once."""
    moved = prompt_tokens * p.layers * p.kv_values * p.kv_bytes
    return e.cross_s * p.latency + moved / (p.tp * p.nic_bandwidth * e.nic)


@dataclass(frozen=True, slots=True)
class _State:
    """The fleet at one decode batch."""

    ttft_s: Array
    request_s: Array  # from the first token to the last
    rate: Array  # requests a second
    busy: Array  # share of the prefill capacity


def _solve(p, gangs, gpus, traffic, load, batch_max, state):  # noqa
    output = np.asarray(traffic.output_tokens, dtype=float)
    ranks = gangs * p.dp
    match load:
        case ClosedLoop(concurrency):
            wanted = np.asarray(concurrency, dtype=float)
            most = np.minimum(batch_max, wanted / ranks)

            def excess(batch):
                now = state(batch)
                return now.rate * now.ttft_s + batch * ranks - wanted
        case OpenLoop(rate):
            wanted = np.asarray(rate, dtype=float)
            most = batch_max + 0 * wanted

            def excess(batch):
                return state(batch).rate - wanted
        case _:
            assert_never(load)
    most = np.maximum(most, 1e-6)
    low, high = np.full_like(most, np.log(1e-7)), np.log(most)
    shape = np.broadcast_shapes(low.shape, np.shape(excess(most)))
    low, high = np.broadcast_to(low, shape).copy(), np.broadcast_to(high, shape).copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = excess(np.exp(middle)) > 0
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    batch = np.exp(low)
    now = state(batch)
    at_limit = excess(most) < 0
    saturated = np.zeros(shape, dtype=bool)
    if isinstance(load, ClosedLoop):
        # At a limit of memory or of prefill, the rest of the requests wait before their prefill.
        ttft = np.maximum(wanted / now.rate - now.request_s, now.ttft_s * 0)
        ttft = np.maximum(ttft, np.where(np.isfinite(now.ttft_s), now.ttft_s, 0))
        in_system = wanted + 0 * batch
    else:
        saturated = at_limit | ~np.isfinite(now.ttft_s)
        ttft = np.where(saturated, np.inf, now.ttft_s)
        in_system = now.rate * (ttft + now.request_s)
    tokens = now.rate / gpus
    return Prediction(
        ttft_s=ttft,
        tpot_s=now.request_s / np.maximum(output - 1, 1.0),
        request_rate=now.rate,
        concurrency=in_system,
        decode_batch=batch,
        prefill_load=now.busy,
        kv_limited=at_limit & (batch_max * ranks < in_system),
        saturated=saturated,
        gpus=gpus + 0 * batch,
        output_tokens_per_s_per_gpu=tokens * output,
        total_tokens_per_s_per_gpu=tokens * (output + traffic.input_tokens),
    )
