"""All ways to build a gang that a planner should have an opinion on."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.perf import EngineFamily, Kv, Layout
from orchestrator.placement.asked import Asked
from orchestrator.placement.wide_ep import OVERLAPPING, exchange_of

# Every width up to 16 nodes, then those that operators build: multiples that divide the experts
# well, up to DeepSeek's EP320 (DeepSeek-V3 technical report, section 3.4.2).
_NODES = (*range(2, 17), 18, 20, 24, 28, 32, 36, 40, 80)
_GPUS_MAX = 320
_TENSOR = (1, 2, 4, 8)
_TENSOR_ACROSS = (2, 4)  # nodes
_STAGES_MAX = 8
DRAFTS_MAX = 3  # beyond it the published accept lengths hardly grow
_REDUNDANT_MAX = 128  # half as many as there are experts
# Prompt tokens of a rank in one step: vLLM's usual budget, and larger ones that feed wide experts.
_CHUNKS = {
    Role.UNIFIED: (4_096, 8_192, 16_384),
    Role.PREFILL: (8_192, 16_384, 32_768),
    Role.DECODE: (2_048,),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How one gang of a role is built."""

    role: Role
    layout: Layout
    kv: Kv
    nodes: int

    @property
    def gpus(self) -> int:
        """Of the whole gang."""
        return self.layout.gpus

    @property
    def effort(self) -> int:
        """What it asks for beyond the plainest layout; of equally good ones the least is chosen."""
        layout = self.layout
        return layout.redundant_experts + layout.mtp_drafts + layout.chunk_tokens // 1_024

    @property
    def kind(self) -> str:
        """Its parallel axes: what an operator would call the layout."""
        layout = self.layout
        axes = [(layout.tp, "TP"), (layout.pp, "PP"), (layout.dp, "DP"), (layout.ep, "EP")]
        return " ".join(f"{name}{size}" for size, name in axes if size > 1) or "TP1"

    @property
    def name(self) -> str:
        """The kind and everything else that tells shapes of a role apart."""
        layout = self.layout
        parts = [self.kind]
        if layout.redundant_experts:
            parts.append(f"+{layout.redundant_experts} experts")
        if layout.mtp_drafts:
            parts.append(f"MTP{layout.mtp_drafts}")
        parts.append(f"chunk {layout.chunk_tokens}")
        if self.kv is not Kv.BF16:
            parts.append(f"{self.kv} KV")
        return " ".join(parts)


def shapes(asked: Asked) -> list[Shape]:
    """Every shape that the nodes have GPUs for, legal or not, always in the same order."""
    found = []
    for role in (Role.UNIFIED, Role.PREFILL, Role.DECODE):
        for layout, nodes in _layouts(asked):
            for drafts in _drafts(asked, role):
                for chunk in _CHUNKS[role]:
                    full = Layout(
                        layout.tp,
                        layout.pp,
                        layout.dp,
                        layout.ep,
                        layout.redundant_experts,
                        drafts,
                        overlap=layout.ep > 1 and _overlaps(asked, role, layout.ep),
                        chunk_tokens=chunk,
                    )
                    found += [Shape(role, full, kv, nodes) for kv in Kv]
    return found


def _overlaps(asked: Asked, role: Role, ep: int) -> bool:
    """Whether two batches can hide each other's exchange: vLLM and SGLang have that for some
    kernels only.
    """
    if asked.engine not in (EngineFamily.VLLM, EngineFamily.SGLANG):
        return ep > asked.gpus_per_node
    return exchange_of(asked.gpu, asked.fabric, role, ep, asked.gpus_per_node) in OVERLAPPING


def _drafts(asked: Asked, role: Role) -> range:
    if not asked.model.mtp_layers:
        return range(1)
    # Prefill drafts nothing, but computes the KV of the layer that does.
    return range(2) if role is Role.PREFILL else range(DRAFTS_MAX + 1)


def _layouts(asked: Asked) -> Iterator[tuple[Layout, int]]:
    """Parallel axes and the nodes that they take."""
    per_node, most = asked.gpus_per_node, asked.full_nodes
    tensor = [size for size in _TENSOR if size <= per_node]
    for gpus in tensor:  # on one node, or on a part of one
        if per_node % gpus == 0:
            yield from _divided(asked, gpus, 1, tensor)
    if per_node not in tensor:
        yield from _divided(asked, per_node, 1, tensor)
    for nodes in _NODES:
        if nodes <= most and nodes * per_node <= _GPUS_MAX:
            yield from _divided(asked, nodes * per_node, nodes, tensor)
    for nodes in _TENSOR_ACROSS:
        if nodes <= most and nodes * per_node > max(tensor):
            yield Layout(tp=nodes * per_node), nodes
    for stages in range(2, min(_STAGES_MAX, most) + 1):
        yield Layout(tp=per_node, pp=stages), stages


def _divided(
    asked: Asked, gpus: int, nodes: int, tensor: list[int]
) -> Iterator[tuple[Layout, int]]:
    """A gang of `gpus` without stages: attention as `tp` x `dp`, experts sliced or dealt out."""
    for tp in tensor:
        if gpus % tp:
            continue
        if nodes == 1 or tp < gpus:
            yield Layout(tp=tp, dp=gpus // tp), nodes
        experts = asked.model.experts
        if experts is None or gpus == 1:
            continue
        least = -experts.routed % gpus
        for redundant in sorted({0, least, least + gpus}):
            if redundant <= _REDUNDANT_MAX:
                yield Layout(tp=tp, dp=gpus // tp, ep=gpus, redundant_experts=redundant), nodes
