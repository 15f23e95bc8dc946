"""A fleet under load: from step times to TTFT, TPOT and rates, by Little's law.

The decode batch is the unknown. A larger batch serves more requests a second and holds more of
them, so the batch at which the fleet holds, or serves, what the load says is found by bisection,
for all points at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from orchestrator.perf.factors import Efficiency, Factors, shipped_factors
from orchestrator.perf.layout import Array, LayoutGrid
from orchestrator.perf.ledger import ledger
from orchestrator.perf.point import Point
from orchestrator.perf.queueing import mean_wait
from orchestrator.perf.step import StepTime, decode_pass, prefill_pass
from orchestrator.perf.traffic import ClosedLoop, Load, OpenLoop, Prediction, Traffic

_BATCH_MIN = 1e-6
_INTERVAL = 23.0  # of the batch's logarithm: down to 1e-10 of the largest
_HALVINGS = 32  # of that interval: to 5e-9 of the batch
_BUSY_MAX = 0.999  # of prefill, where an open loop's queue is still finite


def efficiency(grid: LayoutGrid, factors: Factors | None = None) -> Efficiency:
    """The factors that hold for a grid: those given, else its own, else the shipped ones."""
    factors = factors or grid.factors or shipped_factors()
    return factors.of(grid.hardware.generation, grid.engine, grid.precision.experts.value)


def decode_step(
    grid: LayoutGrid,
    batch_per_rank: float | Array,
    context_tokens: float | Array,
    factors: Factors | None = None,
) -> StepTime:
    """One decode step of so many sequences a rank, each with so many tokens of context."""
    batch, context = (np.asarray(x, dtype=float) for x in (batch_per_rank, context_tokens))
    return decode_pass(Point.of(grid), efficiency(grid, factors), batch, context)


def prefill_step(
    grid: LayoutGrid,
    tokens_per_rank: float | Array,
    context_tokens: float | Array,
    factors: Factors | None = None,
) -> StepTime:
    """One pass over a part of one prompt on each rank; see `prefill_pass`.

    Its tokens see `context_tokens` on average: half of themselves and all that came before.
    """
    tokens, context = (np.asarray(x, dtype=float) for x in (tokens_per_rank, context_tokens))
    cached = np.maximum(context - tokens / 2, 0.0)
    return prefill_pass(Point.of(grid), efficiency(grid, factors), tokens, context, cached)


def unified(
    grid: LayoutGrid,
    gangs: float | Array,
    traffic: Traffic,
    load: Load,
    factors: Factors | None = None,
) -> Prediction:
    """`gangs` gangs that prefill and decode on the same GPUs."""
    pool = pool_of(grid, gangs, factors)
    return solve_unified(pool, traffic, load, _batch_max(grid, traffic))


def disaggregated(
    prefill_grid: LayoutGrid,
    prefill_gangs: float | Array,
    decode_grid: LayoutGrid,
    decode_gangs: float | Array,
    traffic: Traffic,
    load: Load,
    factors: Factors | None = None,
) -> Prediction:
    """Prefill gangs that hand over to decode gangs; the two grids' shapes broadcast."""
    prefill = pool_of(prefill_grid, prefill_gangs, factors)
    decode = pool_of(decode_grid, decode_gangs, factors)
    return solve_disaggregated(prefill, decode, traffic, load, _batch_max(decode_grid, traffic))


def _batch_max(grid: LayoutGrid, traffic: Traffic) -> Array:
    """Sequences that a rank has KV room for."""
    return ledger(grid).kv_tokens_per_rank / traffic.context()


# --- on points, of any hardware ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pool:
    """Gangs of one kind."""

    point: Point
    efficiency: Efficiency
    gangs: Array

    @property
    def ranks(self) -> Array:
        """DP ranks of all its gangs."""
        return self.gangs * self.point.dp

    @property
    def gpus(self) -> Array:
        """Of all its gangs."""
        return self.ranks * self.point.tp * self.point.pp


def pool_of(grid: LayoutGrid, gangs: float | Array, factors: Factors | None = None) -> Pool:
    """So many gangs of each layout of a grid."""
    return Pool(Point.of(grid), efficiency(grid, factors), np.asarray(gangs, dtype=float))


@dataclass(frozen=True, slots=True)
class Prefill:
    """What prompts cost a gang."""

    prompt_s: Array  # one prompt that comes alone, from its start to its end
    work_s: Array  # of the gang's time for each of many prompts: 1 / prompts a second


def prefill_cost(pool: Pool, traffic: Traffic) -> Prefill:
    """What the traffic's prompts cost each gang of the pool."""
    p, e = pool.point, pool.efficiency
    prompt = np.asarray(traffic.input_tokens, dtype=float)
    cached = prompt * traffic.prefix_hit
    fresh = np.maximum(prompt - cached, 1.0)
    seen = cached + fresh / 2
    passes = np.ceil(fresh / p.chunk_tokens)
    part = fresh / passes
    before = cached + part * (passes - 1) / 2  # in the cache at a pass, on average
    alone = prefill_pass(p, e, part, seen, before, active_ranks=np.ones_like(p.dp)).total_s
    prompt_s = alone * (passes + p.pp - 1) / p.pp  # stages fill and drain once a prompt
    before = before * p.chunk_tokens / part  # of as many prompts, or parts, as share a full pass
    full = prefill_pass(p, e, p.chunk_tokens, seen, before).total_s / p.pp
    return Prefill(prompt_s, np.minimum(full * fresh / (p.chunk_tokens * p.dp), prompt_s))


@dataclass(frozen=True, slots=True)
class _State:
    """The fleet at one decode batch."""

    ttft_s: Array
    request_s: Array  # from the first token to the last
    rate: Array  # requests a second
    busy: Array  # share of the prefill capacity


def solve_unified(pool: Pool, traffic: Traffic, load: Load, batch_max: Array) -> Prediction:
    """Prefill and decode on the same GPUs; `batch_max` sequences have room on a rank."""
    p, e = pool.point, pool.efficiency
    prefill = prefill_cost(pool, traffic)
    steps = traffic.steps(p.drafts)
    bunched = _bunched(load, pool.gangs, e)
    others = np.asarray(1.0)  # share of the decodes of a gang that are not the one that looks
    if isinstance(load, ClosedLoop):
        in_gang = np.minimum(np.asarray(load.concurrency) / pool.gangs, batch_max * p.dp)
        others = 1 - 1 / np.maximum(in_gang, 1.0)

    def state(batch: Array) -> _State:
        step = decode_pass(p, e, batch, traffic.context()).total_s
        in_gang = batch * p.dp
        request_s = step * steps + e.stall * others * in_gang * prefill.work_s
        rate = in_gang / request_s
        busy = rate * prefill.work_s
        queue = prefill.work_s * (bunched + _queue(load, busy, np.asarray(1.0)))
        queue = np.where(busy < np.minimum(1.0, 1 / e.stall), queue, np.inf)
        ttft = e.first_token_s + prefill.prompt_s + 0.5 * step + queue
        return _State(ttft, request_s, rate * pool.gangs, busy)

    return _solve(pool, pool.gpus, traffic, load, batch_max, state)


def solve_disaggregated(
    prefill_pool: Pool, pool: Pool, traffic: Traffic, load: Load, batch_max: Array
) -> Prediction:
    """Prefill apart from decode (`pool`); `batch_max` sequences have room on a decode rank."""
    p, e = prefill_pool.point, prefill_pool.efficiency
    prefill = prefill_cost(prefill_pool, traffic)
    steps = traffic.steps(pool.point.drafts)
    transfer = transfer_s(p, e, np.asarray(traffic.input_tokens, dtype=float))
    bunched = _bunched(load, prefill_pool.gangs, e)

    def state(batch: Array) -> _State:
        step = decode_pass(pool.point, pool.efficiency, batch, traffic.context()).total_s
        request_s = step * steps
        rate = batch * pool.ranks / request_s
        busy = rate * prefill.work_s / prefill_pool.gangs
        queue = prefill.work_s * (bunched + _queue(load, busy, prefill_pool.gangs))
        queue = np.where(busy < 1, queue, np.inf)
        ttft = e.first_token_s + prefill.prompt_s + transfer + step + queue
        return _State(ttft, request_s, rate, busy)

    return _solve(pool, prefill_pool.gpus + pool.gpus, traffic, load, batch_max, state)


def transfer_s(p: Point, e: Efficiency, prompt_tokens: Array) -> Array:
    """Moving a prompt's KV between nodes: a rank's GPUs send their shares of it at once."""
    moved = prompt_tokens * p.layers * p.kv_values * p.kv_bytes
    return e.cross_s * p.latency + moved / (p.tp * p.nic_bandwidth * e.nic)


def _bunched(load: Load, gangs: Array, e: Efficiency) -> Array:
    """Prompts before one in prefill: a closed loop's start at once, and stay bunched."""
    if isinstance(load, OpenLoop):
        return np.asarray(0.0)
    return np.asarray(e.bunch * np.maximum(np.asarray(load.concurrency) / gangs - 1, 0.0))


def _queue(load: Load, busy: Array, gangs: Array) -> Array:
    """Prompts' work before an open loop's prompt."""
    if isinstance(load, ClosedLoop):
        return np.asarray(0.0)
    within = np.minimum(busy, _BUSY_MAX)
    return np.asarray(mean_wait(within, gangs))


def _solve(
    pool: Pool,
    gpus: Array,
    traffic: Traffic,
    load: Load,
    batch_max: Array,
    state: Callable[[Array], _State],
) -> Prediction:
    """The prediction at the batch where the fleet does what the load says, or at its limit."""
    match load:
        case ClosedLoop(concurrency):
            wanted = np.asarray(concurrency, dtype=float)
            most = np.minimum(batch_max, wanted / pool.ranks)

            def excess(batch: Array) -> Array:
                now = state(batch)
                return np.asarray(now.rate * now.ttft_s + batch * pool.ranks - wanted)
        case OpenLoop(request_rate):
            wanted = np.asarray(request_rate, dtype=float)
            most = batch_max + 0 * wanted

            def excess(batch: Array) -> Array:
                now = state(batch)
                return np.asarray(np.where(now.busy < _BUSY_MAX, now.rate, np.inf) - wanted)
        case _:
            assert_never(load)
    most = np.maximum(most, _BATCH_MIN)
    at_most = excess(most)
    batch = _bisect(excess, np.broadcast_to(most, at_most.shape))
    now = state(batch)
    limited = at_most < 0
    if isinstance(load, ClosedLoop):
        # At the limit of memory or of prefill the other requests wait before their prefill.
        ttft = np.asarray(wanted / now.rate - now.request_s)
        ttft = np.where(np.isfinite(now.ttft_s), np.maximum(ttft, now.ttft_s), ttft)
        in_system = wanted + 0 * batch
        saturated = np.zeros_like(limited)
    else:
        saturated = limited | (now.rate < wanted * (1 - 1e-3))
        ttft = np.where(saturated, np.inf, now.ttft_s)
        in_system = now.rate * (ttft + now.request_s)
    each = now.rate / gpus
    output = np.asarray(traffic.output_tokens, dtype=float)
    return Prediction(
        ttft_s=ttft,
        tpot_s=now.request_s / np.maximum(output - 1, 1.0),
        request_rate=now.rate,
        concurrency=in_system,
        decode_batch=batch,
        prefill_load=now.busy,
        kv_limited=limited & (batch_max * pool.ranks < in_system),
        saturated=saturated,
        gpus=gpus + 0 * batch,
        output_tokens_per_s_per_gpu=each * output,
        total_tokens_per_s_per_gpu=each * (output + traffic.input_tokens),
    )


def _bisect(excess: Callable[[Array], Array], most: Array) -> Array:
    """The batch up to `most` at which `excess`, which grows with it, reaches 0."""
    high = np.log(most)
    low = high - _INTERVAL
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = excess(np.exp(middle)) > 0
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    return np.asarray(np.exp(low))
