"""Which shapes are legal, and the first constraint that the others violate."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.core import Role
from orchestrator.perf import Kv, LayoutGrid, Ledger, Weight, ledger
from orchestrator.placement.asked import Asked
from orchestrator.placement.reasons import OF_CHOICE, Reason, Violation
from orchestrator.placement.shapes import Shape
from orchestrator.spec import Fabric

# Numbers that share a scale: config.json of DeepSeek-R1, weight_block_size; NVFP4's 16.
_BLOCK = {Weight.FP8: 128, Weight.NVFP4: 16, Weight.BF16: 1}
_GB = 1e9


def grid_of(asked: Asked, shapes: Sequence[Shape]) -> LayoutGrid:
    """The shapes as arrays; all must have the same KV format."""
    kvs = {shape.kv for shape in shapes}
    assert len(kvs) <= 1, "one KV format a grid"
    grid = LayoutGrid.of(
        [shape.layout for shape in shapes],
        asked.model,
        asked.gpu,
        asked.precision(kvs.pop() if kvs else Kv.BF16),
        asked.engine,
        asked.fabric,
    )
    return replace(grid, factors=asked.factors)


def judge(asked: Asked, shapes: Sequence[Shape]) -> list[Violation | None]:
    """For each shape the first constraint that it violates, in the order of `Reason`, or None.

    Reasons in `asked.allowed` refuse nothing.
    """
    verdicts: list[Violation | None] = [None] * len(shapes)
    for kv in Kv:
        index = [at for at, shape in enumerate(shapes) if shape.kv is kv]
        of_kv = [shapes[at] for at in index]
        if not of_kv:
            continue
        book = ledger(grid_of(asked, of_kv))
        for row, (at, shape) in enumerate(zip(index, of_kv, strict=True)):
            violations = (*_structure(asked, shape), *_memory(asked, shape, book, row))
            verdicts[at] = next((v for v in violations if v.reason not in asked.allowed), None)
    return verdicts


def _structure(asked: Asked, shape: Shape) -> Iterator[Violation]:
    yield from _sizes(asked, shape)
    layout = shape.layout
    if layout.pp > 1 and shape.role is not Role.UNIFIED:
        yield Violation(
            Reason.STAGES_SEND_NO_KV,
            f"vLLM transfers no KV from or to a gang with {layout.pp} pipeline stages",
        )
    yield from _fabric(asked, shape)
    if shape.kv is Kv.FP8:
        halved = asked.model.kv_bytes_per_token(Kv.FP8)
        yield Violation(
            Reason.FP8_KV,
            f"an FP8 cache takes {halved:,.0f} B a token instead of "
            f"{asked.model.kv_bytes_per_token(Kv.BF16):,.0f} and rounds what the model reads: "
            "it must be allowed by name",
        )


def _sizes(asked: Asked, shape: Shape) -> Iterator[Violation]:
    model, layout = asked.model, shape.layout
    heads, experts = model.attention.heads, model.experts
    if heads % layout.tp:
        yield Violation(Reason.HEADS, f"{heads} attention heads / TP{layout.tp} leaves a rest")
    if experts is None:
        if layout.dp > 1:
            yield Violation(
                Reason.DENSE_MODEL,
                f"{layout.dp} data-parallel ranks of a dense model share nothing: "
                "replicas do the same",
            )
        return
    slots = experts.routed + layout.redundant_experts
    if slots % layout.ep:
        yield Violation(
            Reason.EXPERTS,
            f"{experts.routed} + {layout.redundant_experts} expert slots / EP{layout.ep} = "
            f"{slots / layout.ep:.2f} a GPU, not a whole number",
        )
    slices = layout.tp * layout.dp // layout.ep
    block = _BLOCK[asked.weights]
    if experts.width % (slices * block):
        yield Violation(
            Reason.EXPERT_WIDTH,
            f"expert width {experts.width} / {slices} GPUs = {experts.width / slices:g}, no "
            f"multiple of the {asked.weights} block of {block}",
        )


def _fabric(asked: Asked, shape: Shape) -> Iterator[Violation]:
    model, layout = asked.model, shape.layout
    domain = max(asked.gpu.domain_gpus, asked.gpus_per_node)
    if layout.tp > domain:
        copies = layout.tp // model.attention.kv_shards
        yield Violation(
            Reason.TENSOR_ACROSS_NODES,
            f"TP{layout.tp} leaves NVLink, which joins {domain} GPUs, for two all-reduces in each "
            f"of {model.layers} layers, and keeps {copies} copies of the KV cache: "
            f"{copies} x {model.kv_bytes_per_token(shape.kv):,.0f} B a token",
        )
    stage = layout.tp * layout.dp
    if stage <= domain:
        pass
    elif model.experts is not None and layout.ep == 1 and layout.dp > 1:
        yield Violation(
            Reason.SLICES_ACROSS_NODES,
            f"without EP each of {stage} GPUs holds a slice of every expert, and every token goes "
            f"to all of them in {model.moe_layers} layers across nodes",
        )
    elif layout.ep > 1 and asked.fabric is not Fabric.RDMA:
        sent = 8 * (model.hidden + model.hidden // 32 + 2 * model.hidden)  # dispatch FP8, combine
        yield Violation(
            Reason.NO_RDMA,
            f"EP{layout.ep} sends {sent / 1e3:.1f} kB a token in each of {model.moe_layers} layers "
            f"between all GPUs, which needs RDMA; the fabric is {asked.fabric}",
        )
    if layout.pp > 1 and asked.fabric is Fabric.RDMA:
        yield Violation(
            Reason.STAGES_WITH_RDMA,
            f"the fabric carries expert parallelism; {layout.pp} stages across nodes would add "
            f"bubbles, and no measurement validates their prediction",
        )


def _memory(asked: Asked, shape: Shape, book: Ledger, row: int) -> Iterator[Violation]:
    parts = {name: float(column[row]) for name, column in book.components.items()}
    capacity = float(book.capacity_bytes[row])
    if not book.fits[row]:
        largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
        rest = sum(parts.values()) - sum(size for _, size in largest)
        listed = " + ".join(f"{name.replace('_', ' ')} {size / _GB:.1f}" for name, size in largest)
        total = capacity + float(book.short_bytes[row])
        yield Violation(
            Reason.MEMORY,
            f"{listed} + others {rest / _GB:.1f} = {total / _GB:.1f} GB > {capacity / _GB:.1f} GB "
            f"of a GPU",
        )
        return
    room = float(book.kv_tokens_per_rank[row])
    if room < asked.context_tokens:
        yield Violation(
            Reason.KV_ROOM,
            f"{parts['kv'] / _GB:.1f} GB left for KV hold {room:,.0f} tokens, fewer than one "
            f"request of {asked.context_tokens:,}",
        )


def choices() -> list[str]:
    """The names of the reasons that an operator may allow."""
    return sorted(OF_CHOICE)


def usable(verdicts: Sequence[Violation | None]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Indices of the legal shapes."""
    return np.array([at for at, verdict in enumerate(verdicts) if verdict is None], dtype=np.intp)
