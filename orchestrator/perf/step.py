"""How long one forward pass takes, term by term: a roofline for each kind of kernel, communication
by fabric, and the latencies that no bandwidth shortens.

All functions are elementwise on arrays that broadcast. In them `m` are the tokens of one rank and
`n` those of all ranks of its pipeline stage.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from orchestrator.perf.architecture import GROUPS_CHOSEN
from orchestrator.perf.factors import Efficiency
from orchestrator.perf.layout import Array
from orchestrator.perf.point import Point

_ACTIVATION_BYTES = 2  # BF16 between layers
_DISPATCH_BYTES = 1 + 4 / 128  # FP8 with a scale for each 128: DeepEP's low-latency kernels
_HIDDEN_MOVES = 10  # of the hidden state a layer: norms, quantisation, residuals, each in and out

_COMPUTE = ("projections", "attention", "dense", "shared_expert", "experts", "activations")


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one pass by term; they add up to `total_s`. `overlap` is what hides, below 0."""

    terms: Mapping[str, Array]

    @property
    def total_s(self) -> Array:
        """All terms together."""
        return _sum(self.terms.values())


def decode_pass(p: Point, e: Efficiency, batch: Array, context: Array) -> StepTime:
    """One decode step of `batch` sequences a rank that hold `context` tokens each.

    When a step runs, some rank has a sequence: a smaller batch counts as that. With pipeline stages
    the batch goes through in as many parts, and the step ends when each sequence has its token.
    With drafts each sequence computes `1 + drafts` tokens, and each draft is a further layer with
    a head.
    """
    part = np.maximum(batch / p.pp, 1.0)
    m = part * (1.0 + p.drafts)
    n = np.maximum(batch * p.dp / p.pp, 1.0) * (1.0 + p.drafts)
    flops = p.decode_flops * m * context / p.tp
    cache = part * context * p.kv_values * p.kv_bytes / np.minimum(p.tp, p.kv_shards)
    memory = p.bandwidth * e.memory
    attention = _roofline(flops, cache, p.attention_flops * e.latent, memory)
    terms = _layers(p, e, m, n, attention, prefill=False)
    terms["launch"] = p.layers * e.layer_s * np.ones_like(m)
    terms = _overlapped(p, e, terms)
    head = p.head_params / p.tp
    head_s = _roofline(2 * head * m, head * _ACTIVATION_BYTES, p.core_flops * e.gemm, memory)
    terms["drafts"] = p.drafts * (_sum(terms.values()) / p.layers + head_s)
    terms["head"] = head_s
    terms["step"] = e.step_s * np.ones_like(m)
    return StepTime({name: e.pace * term for name, term in terms.items()})


def prefill_pass(
    p: Point,
    e: Efficiency,
    tokens: Array,
    context: Array,
    cached: Array,
    active_ranks: Array | None = None,
) -> StepTime:
    """One pass over `tokens` prompt tokens a rank that see `context` tokens before them on average.

    `cached` tokens a rank lie in the cache already; MLA makes their keys and values again from the
    latent. `active_ranks` of the DP ranks have such a batch (all of them by default). With pipeline
    stages it is the way of one chunk through all of them.
    """
    m = np.asarray(tokens, dtype=float)
    n = m * (p.dp if active_ranks is None else active_ranks)
    attention = p.prefill_flops * m * context / (p.core_flops * e.attention)
    attention = (attention + 2 * p.expand_params * cached / (p.core_flops * e.gemm)) / p.tp
    terms = _overlapped(p, e, _layers(p, e, m, n, attention, prefill=True))
    floor = e.prefill_layer_s * p.layers
    terms["launch"] = np.maximum(floor - _sum(terms.values()), 0.0)
    return StepTime({name: e.pace * term for name, term in terms.items()})


def _sum(terms: Iterable[Array]) -> Array:
    return np.asarray(reduce(np.add, terms))


def _roofline(flops: Array, moved: Array, flops_rate: Array, bytes_rate: Array) -> Array:
    return np.maximum(flops / flops_rate, moved / bytes_rate)


def _layers(
    p: Point, e: Efficiency, m: Array, n: Array, attention: Array, *, prefill: bool
) -> dict[str, Array]:
    """All layers' terms; `attention` is one layer's."""
    memory = p.bandwidth * e.memory

    def product(params: Array, width: Array, peak: Array) -> Array:
        return _roofline(2 * params * m, params * width, peak * e.gemm, memory)

    weights = p.attention_replicated + p.attention_divided / p.tp
    shared = p.expert_params * p.shared / p.tp
    moved = (_HIDDEN_MOVES * p.hidden + 2 * p.head_values / p.tp) * _ACTIVATION_BYTES
    hop = 2 * m * p.hidden * _ACTIVATION_BYTES / (p.nic_bandwidth * e.nic)  # with the residual
    return {
        "projections": p.layers * product(weights, p.dense_bytes, p.dense_flops),
        "attention": p.layers * attention,
        "dense": (p.layers - p.moe_layers)
        * product(p.dense_params / p.tp, p.dense_bytes, p.dense_flops),
        "shared_expert": p.moe_layers * product(shared, p.expert_bytes, p.expert_flops),
        "experts": p.moe_layers * _experts(p, e, n),
        "activations": p.layers * m * e.activations * moved / memory,
        "communication": _communication(p, e, m, prefill=prefill),
        "hand_over": (p.pp - 1) * (hop + e.collective_s + e.cross_s * p.latency),
    }


def _overlapped(p: Point, e: Efficiency, terms: dict[str, Array]) -> dict[str, Array]:
    """With what two-batch overlap hides of the shorter of computing and communicating."""
    compute = _sum(terms[name] for name in _COMPUTE)
    terms["overlap"] = -p.overlap * e.overlap * np.minimum(compute, terms["communication"])
    return terms


def _experts(p: Point, e: Efficiency, n: Array) -> Array:
    """One MoE layer's routed experts on its busiest rank.

    The experts' popularity is a gamma distribution, the tokens' choices are independent: so many
    experts are read, and the busiest of the EP ranks has so much more than its share.
    """
    spread = np.maximum(e.spread * p.unbalanced, 1e-3)
    unread = (1 + n * p.chosen / p.routed * spread**2) ** (-1 / spread**2)
    spread = spread * np.where(p.rebalanced > 0, e.rebalanced, 1.0)
    extreme = np.where(p.ep > 1, _extreme(p.ep), 0.0)
    mean_pairs = n * p.chosen / p.ep
    deviation = np.sqrt(spread**2 * p.ep / p.routed + 1 / np.maximum(mean_pairs, 1e-9))
    pairs = np.minimum(mean_pairs * (1 + deviation * extreme), n * p.chosen)
    held = (p.routed + p.redundant) / p.ep
    read = held * (1 - unread)
    read = np.minimum(held, read + extreme * np.sqrt(read * unread))
    sharers = p.tp * p.dp / p.ep  # GPUs that hold a slice of the same expert
    weights = read * p.expert_params * p.expert_bytes / sharers
    # An expert's product has the efficiency x / (x + expert_tokens) with x tokens.
    flops = 2 * p.expert_params * (pairs + e.expert_tokens * read) / sharers
    products = _roofline(flops, weights, p.expert_flops * e.gemm, p.bandwidth * e.expert_memory)
    # Gathered in FP8, multiplied, gated, multiplied, returned in BF16; each written and read once.
    moved = 2 * (p.hidden + (3 * p.expert_width + p.hidden) * _ACTIVATION_BYTES)
    return np.asarray(products + pairs * e.pairs * moved / (p.bandwidth * e.memory))


def _extreme(ranks: Array) -> Array:
    """By how many standard deviations the largest of `ranks` normal draws exceeds the mean."""
    return np.asarray(np.sqrt(2 * np.log(np.maximum(ranks, 1.0))))


def _communication(p: Point, e: Efficiency, m: Array, *, prefill: bool) -> Array:
    """All layers': all-reduces of tensor parallelism, and the exchange among DP ranks."""
    exchanges = p.moe_layers * (p.dp > 1)
    reduces = (2 * p.layers - exchanges) * (p.tp > 1)  # an exchange takes the place of one
    exchange_s = _exchange(p, e, m, prefill=prefill)
    return np.asarray(reduces * _all_reduce(p, e, m) + exchanges * exchange_s)


def _all_reduce(p: Point, e: Efficiency, m: Array) -> Array:
    row = p.hidden * _ACTIVATION_BYTES
    nodes = np.maximum(p.tp / p.domain_gpus, 1.0)
    inside = np.minimum(p.tp, p.domain_gpus)
    ring = 2 * (inside - 1) / inside * m * row / (p.link_bandwidth * e.reduce)
    across = 2 * (nodes - 1) / nodes * m * row / inside / (p.nic_bandwidth * e.nic)
    return np.asarray(ring + across + e.collective_s + (nodes > 1) * e.cross_s * p.latency)


def nodes_hit(p: Point, nodes: Array) -> Array:
    """Nodes that hold experts of a token, where routing keeps it to a few groups of experts.

    Up to as many nodes as groups each holds whole groups; beyond that a group lies on several.
    """
    others = p.groups - p.groups / np.minimum(nodes, p.groups)  # groups that are not on a node
    missed = np.prod([np.maximum(others - i, 0) / (p.groups - i) for i in range(GROUPS_CHOSEN)], 0)
    parts = np.maximum(nodes / p.groups, 1.0)
    in_group = parts * (1 - (1 - 1 / parts) ** (p.chosen / GROUPS_CHOSEN))
    return np.asarray(np.minimum(nodes, p.groups) * (1 - missed) * in_group)


def _exchange(p: Point, e: Efficiency, m: Array, *, prefill: bool) -> Array:
    """Dispatch and combine: each token goes to the ranks of its experts and comes back.

    Inside a domain one copy goes to each rank that is hit. Across nodes decode kernels send one for
    each expert, prefill kernels one for each node, and routing keeps a token to a few groups.
    """
    ranks = p.tp * p.dp
    nodes = np.maximum(ranks / p.domain_gpus, 1.0)
    local = np.minimum(ranks, p.domain_gpus)
    hit = local * (1 - (1 - 1 / local) ** (p.chosen / nodes))
    inside = np.where(p.ep > 1, hit, local - 1) * (1 - 1 / local)
    across = (nodes_hit(p, nodes) if prefill else p.chosen) * (1 - 1 / nodes)
    moved = m * p.hidden * (_DISPATCH_BYTES + _ACTIVATION_BYTES)
    slower = np.maximum(inside / (p.link_bandwidth * e.link), across / (p.nic_bandwidth * e.nic))
    hops = np.log2(np.maximum(ranks, 2.0)) / 3  # arrivals are awaited in a tree: 1 for eight ranks
    latency = 2 * (e.exchange_s * hops + (nodes > 1) * e.cross_s * p.latency)
    return np.asarray(moved * slower + latency)
