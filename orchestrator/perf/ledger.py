"""What lies in a GPU's memory, by component: a rank's ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from orchestrator.perf.layout import Array, Flags, LayoutGrid
from orchestrator.perf.precision import KV_BYTES, WEIGHT_BYTES, Weight

# Assumptions, none of them measurable without the GPU; each errs to the large side.
_CONTEXT_BYTES = 1.0e9  # CUDA context and the libraries' own kernels: 0.5-1 GB in nvidia-smi
_COLLECTIVE_BYTES = 1.5e9  # NCCL's channels, NVSHMEM and custom all-reduce buffers
_GRAPH_BYTES = 1.5e9  # CUDA graphs of the usual batch sizes: vLLM logs 0.5-2 GB for R1
_FRAGMENTS = 0.02  # of the memory, lost in the allocator between blocks
_LOGIT_ROWS = 512  # sequences whose logits are in memory at once, FP32


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bytes of the fullest rank's GPU. `components` add up to `total_bytes`, never over capacity.

    KV takes what the rest leaves; where the rest alone is too much, `fits` is false, KV is 0 and
    `short_bytes` says by how much; `components` then lists what was asked for.
    """

    components: Mapping[str, Array]
    capacity_bytes: Array
    fits: Flags
    short_bytes: Array
    kv_tokens_per_rank: Array  # tokens of KV that an attention rank holds
    kv_tokens: Array  # of the gang

    @property
    def total_bytes(self) -> Array:
        """All components together."""
        return reduce(np.add, self.components.values())


def ledger(grid: LayoutGrid) -> Ledger:
    """The ledger of each layout."""
    model, precision = grid.model, grid.precision
    experts = model.experts
    one = np.ones(np.broadcast_shapes(grid.tp.shape, grid.pp.shape, grid.dp.shape, grid.ep.shape))
    layers = np.ceil(model.layers / grid.pp)
    moe = np.minimum(np.ceil(model.layers / grid.pp), model.moe_layers)
    dense_layers = model.dense_layers if model.experts else layers
    mla = model.attention
    attention = mla.replicated(model.hidden) + mla.divided(model.hidden) / grid.tp
    wide, dense, expert = (
        WEIGHT_BYTES[Weight.BF16],
        WEIGHT_BYTES[precision.dense],
        model.expert_params * WEIGHT_BYTES[precision.experts],
    )
    slice_ = grid.tp * grid.dp / grid.ep  # GPUs that share an expert
    routed = experts.routed if experts else 0
    slots = np.ceil((routed + grid.redundant_experts) / grid.ep)  # expert slots of a rank, a layer
    plain = np.ceil(routed / grid.ep)
    mtp = np.where(grid.mtp_drafts > 0, float(model.mtp_layers), 0.0)
    fixed = {
        "embedding_and_head": one * (2 - model.tied) * model.embedding_params / grid.tp * wide,
        "attention": layers * attention * dense,
        "dense_layers": one * dense_layers * model.dense_params / grid.tp * dense,
        "shared_experts": moe * (experts.shared if experts else 0) * expert / grid.tp,
        "routed_experts": moe * plain * expert / slice_,
        "redundant_experts": moe * (slots - plain) * expert / slice_,
        "router_and_norms": layers
        * (model.layer_rest_params() + (experts.router(model.hidden) if experts else 0))
        * wide,
        "mtp_layer": mtp
        * (
            attention * dense
            + 2 * model.hidden**2 * wide
            + (slots / slice_ + (experts.shared if experts else 0) / grid.tp) * expert
        ),
        "activations": _activations(grid),
        "cuda_graphs": one * _GRAPH_BYTES,
        "communication": np.where(grid.tp * grid.dp * grid.pp > 1, _COLLECTIVE_BYTES, 0.0)
        + _exchange(grid),
        "runtime": one * (_CONTEXT_BYTES + _FRAGMENTS * grid.hardware.memory_bytes),
    }
    used = reduce(np.add, fixed.values())
    capacity = one * float(grid.hardware.memory_bytes)
    room = capacity - used
    per_token = (
        (layers + mtp) * mla.kv_values * KV_BYTES[precision.kv] / np.minimum(grid.tp, mla.kv_shards)
    )
    kv = np.maximum(room, 0.0)
    tokens = np.floor(kv / per_token)
    return Ledger(
        components={**fixed, "kv": kv},
        capacity_bytes=capacity,
        fits=room > 0,
        short_bytes=np.maximum(-room, 0.0),
        kv_tokens_per_rank=tokens,
        kv_tokens=tokens * grid.dp,
    )


def expert_slots(routed: int, redundant: int, ep: int) -> int:
    """Experts that each of `ep` ranks holds in a layer."""
    return -(-(routed + redundant) // ep)


def _activations(grid: LayoutGrid) -> Array:
    """The largest intermediates of a prefill chunk, which are live together, in BF16."""
    model = grid.model
    experts = model.experts
    mla = model.attention
    widest = 4 * model.hidden  # residual, normed, and the two of a projection
    heads = mla.divided(model.hidden) / model.hidden / grid.tp  # of all up-projections
    width = experts.width * experts.chosen * 3 if experts else model.dense_width * 3
    rows = grid.chunk_tokens * (widest + heads + width * grid.dp / (grid.tp * grid.dp))
    return rows * 2 + _LOGIT_ROWS * model.vocabulary / grid.tp * 4


def _exchange(grid: LayoutGrid) -> Array:
    """Send and receive buffers of the exchange among DP ranks, BF16, for one chunk's pairs."""
    model = grid.model
    chosen = model.experts.chosen if model.experts else 0
    return np.where(
        grid.dp > 1, 2.0 * np.minimum(grid.chunk_tokens, 4096.0) * chosen * model.hidden * 2, 0.0
    )
