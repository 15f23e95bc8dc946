"""The numbers that step times are computed from: one kind of machine and its layouts, or many."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from orchestrator.perf.architecture import GROUPS_CHOSEN, LatentAttention
from orchestrator.perf.layout import Array, LayoutGrid
from orchestrator.perf.precision import KV_BYTES, WEIGHT_BYTES, Kv, peak_flops
from orchestrator.spec import Fabric

_TCP_BANDWIDTH = 12.5e9 / 8  # 100 Gb/s Ethernet a node of eight GPUs, for each: usual without RDMA
_TCP_LATENCY = 4.0  # times an RDMA message's latency: 50-100 us through the kernel, not 10-20


@dataclass(frozen=True, slots=True)
class Point:
    """Hardware, formats, model and layout as arrays (or numbers) of shapes that broadcast."""

    # hardware
    bandwidth: Array
    dense_flops: Array
    expert_flops: Array
    attention_flops: Array
    core_flops: Array  # BF16, for prefill attention
    link_bandwidth: Array
    nic_bandwidth: Array
    domain_gpus: Array
    gpus_per_node: Array
    latency: Array  # of the fabric between nodes, 1 is RDMA's
    # formats
    dense_bytes: Array
    expert_bytes: Array
    kv_bytes: Array
    # model
    layers: Array
    moe_layers: Array
    hidden: Array
    attention_replicated: Array
    attention_divided: Array
    dense_params: Array
    expert_params: Array
    routed: Array
    shared: Array
    chosen: Array
    groups: Array
    head_params: Array
    head_values: Array  # queries, keys, values and outputs of a token in one layer
    expert_width: Array
    kv_values: Array
    kv_shards: Array
    decode_flops: Array
    prefill_flops: Array
    expand_params: Array  # of a layer, to make keys and values of a cached prefix again
    # layout
    tp: Array
    pp: Array
    dp: Array
    ep: Array
    redundant: Array
    drafts: Array
    overlap: Array
    chunk_tokens: Array
    # routing
    unbalanced: Array  # 1; 0 where every expert is as popular as any other
    rebalanced: Array  # 1 where the engine moves and copies experts by their popularity

    @classmethod
    def of(cls, grid: LayoutGrid, balance: float | None = None) -> "Point":
        """The numbers of a grid. `balance` is 0 for experts of equal popularity, 1 for experts left
        as they are and between them for an engine that rebalances, as it does with copies.
        """
        gpu, model, precision = grid.hardware, grid.model, grid.precision
        mla, experts = model.attention, model.experts
        rdma = grid.fabric is Fabric.RDMA
        fp8_attention = precision.kv is Kv.FP8 and gpu.fp4_flops is not None
        expand = (
            mla.kv_rank * mla.heads * (mla.nope + mla.value)
            if isinstance(mla, LatentAttention)
            else 0
        )
        numbers = {
            "bandwidth": gpu.bandwidth,
            "dense_flops": peak_flops(gpu, precision.dense),
            "expert_flops": peak_flops(gpu, precision.experts),
            # Kernels that compute MLA in FP8 exist for Blackwell: TensorRT-LLM's, FlashInfer's.
            "attention_flops": gpu.fp8_flops if fp8_attention else gpu.bf16_flops,
            "core_flops": gpu.bf16_flops,
            "link_bandwidth": gpu.link_bandwidth,
            "nic_bandwidth": gpu.nic_bandwidth if rdma else _TCP_BANDWIDTH,
            "domain_gpus": gpu.domain_gpus,
            "gpus_per_node": gpu.gpus_per_node,
            "latency": 1.0 if rdma else _TCP_LATENCY,
            "dense_bytes": WEIGHT_BYTES[precision.dense],
            "expert_bytes": WEIGHT_BYTES[precision.experts],
            "kv_bytes": KV_BYTES[precision.kv],
            "layers": model.layers,
            "moe_layers": model.moe_layers,
            "hidden": model.hidden,
            "attention_replicated": mla.replicated(model.hidden),
            "attention_divided": mla.divided(model.hidden),
            "dense_params": model.dense_params,
            "expert_params": model.expert_params,
            "routed": experts.routed if experts else 1,
            "shared": experts.shared if experts else 0,
            "chosen": experts.chosen if experts else 0,
            "groups": experts.groups if experts else GROUPS_CHOSEN,
            "head_params": model.embedding_params,
            "head_values": mla.head_values,
            "expert_width": experts.width if experts else 0,
            "kv_values": mla.kv_values,
            "kv_shards": mla.kv_shards,
            "decode_flops": mla.decode_flops,
            "prefill_flops": mla.prefill_flops,
            "expand_params": expand,
        }
        return cls(
            **{name: np.asarray(value, dtype=float) for name, value in numbers.items()},
            tp=grid.tp,
            pp=grid.pp,
            dp=grid.dp,
            ep=grid.ep,
            redundant=grid.redundant_experts,
            drafts=grid.mtp_drafts,
            overlap=grid.overlap,
            chunk_tokens=grid.chunk_tokens,
            unbalanced=np.asarray(1.0 if balance is None else float(balance > 0)),
            rebalanced=(grid.redundant_experts > 0).astype(float)
            if balance is None
            else np.asarray(float(0 < balance < 1)),
        )

    @classmethod
    def stack(cls, points: Sequence["Point"]) -> "Point":
        """Points of one layout each, of any hardware, as one of shape [points]."""
        names = [each.name for each in fields(cls)]
        return cls(
            **{n: np.array([float(np.squeeze(getattr(p, n))) for p in points]) for n in names}
        )

    @property
    def stage_gpus(self) -> Array:
        """GPUs of one pipeline stage."""
        return self.tp * self.dp
