"""How long one forward pass takes, term by term: a roofline for each kind of kernel, communication
by fabric, and the latencies that no bandwidth shortens.

All functions are elementwise on arrays that broadcast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from orchestrator.perf.factors import Efficiency
from orchestrator.perf.layout import Array
from orchestrator.perf.point import Point

_ACTIVATION_BYTES = 2  # BF16 between layers
_DISPATCH_BYTES = 1 + 4 / 128  # FP8 with a scale for each 128: DeepEP's low-latency kernels


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one pass by term; they add up to `total_s` (what overlap hides is negative)."""

    terms: Mapping[str, Array]

    @property
    def total_s(self) -> Array:
        """All terms together."""
        return reduce(np.add, self.terms.values())


def decode_pass(p: Point, e: Efficiency, batch: Array, context: Array) -> StepTime:
    """One decode step of `batch` sequences a rank that hold `context` tokens each.

    With pipeline stages the batch goes through in as many parts, and the step ends when each
    sequence has its token. With drafts each sequence computes `1 + drafts` tokens.
    """
    part = np.maximum(batch / p.pp, np.minimum(batch, 1.0))
    drafted = 1.0 + p.drafts
    m = part * drafted
    n = m * p.dp
    layer_s = e.layer_s
    terms = _layers(p, e, m, n, _decode_attention(p, e, part, m, context), layer_s, prefill=False)
    terms["head"] = _roofline(
        p.head_params / p.tp * 2 * m,
        p.head_params / p.tp * 2,
        p.core_flops * e.gemm,
        p.bandwidth * e.memory,
    )
    terms["drafts"] = (
        p.drafts / p.layers * sum(terms[t] for t in terms if t != "head") + p.drafts * terms["head"]
    )
    terms["step"] = np.asarray(e.step_s) * np.ones_like(m)
    return StepTime(terms)


def prefill_pass(
    p: Point, e: Efficiency, tokens: Array, context: Array, active_ranks: Array | None = None
) -> StepTime:
    """One pass over `tokens` prompt tokens a rank that see `context` tokens before them on average.

    `active_ranks` of the DP ranks have such a batch (all of them by default).
    """
    m = np.asarray(tokens, dtype=float)
    n = m * (p.dp if active_ranks is None else active_ranks)
    core = p.core_flops * e.attention
    attention = p.prefill_flops * m * context / p.tp / core
    terms = _layers(p, e, m, n, attention, 0.0, prefill=True)
    busy = sum(terms.values())
    floor = e.prefill_layer_s * p.layers
    terms["launch"] = terms["launch"] + np.maximum(floor - busy, 0.0)
    return StepTime(terms)


def _roofline(flops: Array, moved: Array, flops_rate: Array, bytes_rate: Array) -> Array:
    return np.maximum(flops / flops_rate, moved / bytes_rate)


def _decode_attention(p: Point, e: Efficiency, sequences: Array, m: Array, context: Array) -> Array:
    flops = p.decode_flops * m * context / p.tp
    cache = sequences * context * p.kv_values * p.kv_bytes / np.minimum(p.tp, p.kv_shards)
    return _roofline(flops, cache, p.attention_flops * e.attention, p.bandwidth * e.memory)


def _layers(
    p: Point,
    e: Efficiency,
    m: Array,
    n: Array,
    attention: Array,
    layer_s: Array | float,
    *,
    prefill: bool,
) -> dict[str, Array]:
    """All layers' terms for `m` tokens a rank and `n` in the stage's gang."""
    memory = p.bandwidth * e.memory
    dense_rate = p.dense_flops * e.gemm
    weights = p.attention_replicated + p.attention_divided / p.tp
    projections = _roofline(2 * weights * m, weights * p.dense_bytes, dense_rate, memory)
    width = p.dense_params / p.tp
    dense = _roofline(2 * width * m, width * p.dense_bytes, dense_rate, memory)
    width = p.expert_params * p.shared / p.tp
    shared = _roofline(2 * width * m, width * p.expert_bytes, p.expert_flops * e.gemm, memory)
    small = m * e.token_bytes / memory
    communication = _communication(p, e, m, n, prefill=prefill)
    dense_layers = p.layers - p.moe_layers
    moe = _experts(p, e, n)
    terms = {
        "projections": p.layers * projections,
        "attention": p.layers * attention,
        "dense": dense_layers * dense,
        "shared_expert": p.moe_layers * shared,
        "experts": p.moe_layers * moe,
        "activations": p.layers * small,
        "communication": p.layers * communication,
        "launch": p.layers * np.asarray(layer_s) * np.ones_like(m),
        "hand_over": (p.pp - 1)
        * (
            2 * m * p.hidden * _ACTIVATION_BYTES / (p.nic_bandwidth * e.nic)
            + (e.collective_s + e.cross_s * p.latency)
        ),
    }
    compute = sum(
        terms[t]
        for t in ("projections", "attention", "dense", "shared_expert", "experts", "activations")
    )
    hidden = p.overlap * e.overlap * np.minimum(compute, terms["communication"])
    terms["overlap"] = -hidden
    return terms


def _experts(p: Point, e: Efficiency, n: Array) -> Array:
    """One MoE layer's routed experts on the busiest rank."""
    pairs = n * p.chosen
    free = (1 - p.chosen / p.routed) ** n  # chance that no token of n chose an expert
    touched = p.routed * (1 - free)
    mean = pairs / p.ep
    deviation = np.sqrt((e.spread * p.balance) ** 2 * p.ep / p.routed + 1 / np.maximum(mean, 1e-9))
    busiest = np.where(p.ep > 1, 1 + deviation * _extreme(p.ep), 1.0)
    held = (p.routed + p.redundant) / p.ep
    touched_rank = touched / p.ep
    touched_max = np.minimum(
        held, touched_rank + np.where(p.ep > 1, _extreme(p.ep), 0) * np.sqrt(touched_rank * free)
    )
    slice_ = p.stage_gpus / p.ep  # GPUs that share an expert
    weights = touched_max * p.expert_params * p.expert_bytes / slice_
    local = np.minimum(mean * busiest, pairs)
    per_expert = local / np.maximum(touched_max, 1e-9)
    rate = p.expert_flops * e.gemm * per_expert / (per_expert + e.expert_tokens)
    flops = 2 * p.expert_params * local / slice_
    moved = local * e.pair_bytes
    memory = p.bandwidth * e.memory
    return np.maximum(flops / rate, weights / memory) + moved / memory


def _extreme(ranks: Array) -> Array:
    """By how many standard deviations the largest of `ranks` normal draws exceeds the mean."""
    return np.sqrt(2 * np.log(np.maximum(ranks, 1.0)))


def _communication(p: Point, e: Efficiency, m: Array, n: Array, *, prefill: bool) -> Array:
    """One layer: all-reduces of tensor parallelism, or dispatch and combine among DP ranks."""
    link = p.link_bandwidth * e.link
    nic = p.nic_bandwidth * e.nic
    row = p.hidden * _ACTIVATION_BYTES
    # Tensor parallelism: two all-reduces, of which one gives way to the exchange among DP ranks.
    reduces = np.where(p.dp > 1, 1.0, 2.0) * (p.tp > 1)
    tp_nodes = np.maximum(p.tp / p.domain_gpus, 1.0)
    inside = np.minimum(p.tp, p.domain_gpus)
    ring = 2 * (inside - 1) / inside * m * row / link
    across = 2 * (tp_nodes - 1) / tp_nodes * m * row / inside / nic
    all_reduce = reduces * (ring + across + e.collective_s + (tp_nodes > 1) * e.cross_s * p.latency)
    # Expert parallelism among DP ranks: each token goes to the ranks of its experts and back.
    g = p.stage_gpus
    nodes = np.maximum(g / p.domain_gpus, 1.0)
    whole = p.ep > 1
    local = np.minimum(g, p.domain_gpus)
    ranks_hit = local * (1 - (1 - 1 / local) ** (p.chosen / nodes))
    copies_inside = np.where(whole, ranks_hit, local - 1) * (1 - 1 / local)
    if prefill:
        # One copy a node, and routing confines a token to a few groups of experts.
        hit = nodes * (1 - (1 - 1 / nodes) ** p.groups)
        copies_across = hit * (1 - 1 / nodes)
    else:
        copies_across = p.chosen * (1 - 1 / nodes)
    moved = p.hidden * _DISPATCH_BYTES + row
    exchange = m * moved * np.maximum(copies_inside / link, copies_across / nic)
    latency = 2 * (e.collective_s + (nodes > 1) * e.cross_s * p.latency)
    return all_reduce + (p.dp > 1) * (exchange + latency)
