"""Which layouts are legal, and what is said of those that are not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.perf import HARDWARE, Kv, Layout, Weight
from orchestrator.placement import Asked, Reason, Shape, Violation, judge, shapes
from orchestrator.placement.legality import grid_of
from orchestrator.spec import Fabric
from tests.unit.placement.planning import asked, machines


def verdict(
    of: Asked, layout: Layout, role: Role = Role.UNIFIED, kv: Kv = Kv.BF16
) -> Violation | None:
    nodes = -(-layout.gpus // of.gpus_per_node)
    [seen] = judge(of, [Shape(role, layout, kv, nodes)])
    return seen


def test_r1_fits_eight_gpus_of_141_gb_and_not_of_80() -> None:
    tp8 = Layout(tp=8)
    assert verdict(asked("H200", 8), tp8) is None
    refused = verdict(asked("H100", 8), tp8)
    assert refused is not None
    assert refused.reason is Reason.MEMORY
    assert "routed experts 81.8" in refused.why
    assert "> 85.5 GB" in refused.why  # 81,559 MiB


@pytest.mark.parametrize(
    ("gpus", "layout", "role"),
    [
        (32, Layout(dp=32, ep=32, redundant_experts=32), Role.PREFILL),  # DeepSeek's own units
        (144, Layout(dp=144, ep=144, redundant_experts=32), Role.DECODE),
        (16, Layout(dp=16, ep=16), Role.DECODE),  # llm-d's guide
    ],
)
def test_deployments_of_others_are_accepted(gpus: int, layout: Layout, role: Role) -> None:
    assert verdict(asked("H800" if gpus > 16 else "H200", gpus), layout, role) is None


CASES = {
    Reason.HEADS: (asked("H200", 8), Layout(tp=3), Role.UNIFIED, Kv.BF16),
    Reason.EXPERTS: (asked("H200", 24), Layout(dp=24, ep=24), Role.UNIFIED, Kv.BF16),
    Reason.EXPERT_WIDTH: (asked("H200", 24), Layout(dp=24), Role.UNIFIED, Kv.BF16),
    Reason.DENSE_MODEL: (
        asked("H200", 8, "DeepSeek-R1-Distill-Qwen-7B", weights=Weight.BF16),
        Layout(dp=2),
        Role.UNIFIED,
        Kv.BF16,
    ),
    Reason.STAGES_SEND_NO_KV: (asked("H200", 16), Layout(tp=8, pp=2), Role.PREFILL, Kv.BF16),
    Reason.TENSOR_ACROSS_NODES: (asked("H200", 16), Layout(tp=16), Role.UNIFIED, Kv.BF16),
    Reason.SLICES_ACROSS_NODES: (asked("H200", 16), Layout(dp=16), Role.UNIFIED, Kv.BF16),
    Reason.NO_RDMA: (
        asked("H200", 16, fabric=Fabric.TCP),
        Layout(dp=16, ep=16),
        Role.UNIFIED,
        Kv.BF16,
    ),
    Reason.STAGES_WITH_RDMA: (asked("H200", 16), Layout(tp=8, pp=2), Role.UNIFIED, Kv.BF16),
    Reason.FP8_KV: (asked("H200", 8), Layout(tp=8), Role.UNIFIED, Kv.FP8),
    Reason.MEMORY: (asked("H100", 8), Layout(tp=8), Role.UNIFIED, Kv.BF16),
    Reason.KV_ROOM: (
        asked("H100", 16, context_tokens=2_000_000),
        Layout(dp=16, ep=16),
        Role.UNIFIED,
        Kv.BF16,
    ),
}

# What lifts the constraint, and nothing else.
RELAXED = {
    Reason.HEADS: (asked("H200", 8), Layout(tp=8)),
    Reason.EXPERTS: (asked("H200", 24), Layout(dp=24, ep=24, redundant_experts=8)),
    Reason.EXPERT_WIDTH: (asked("H200", 24), Layout(dp=24, ep=24, redundant_experts=8)),
    Reason.DENSE_MODEL: (
        asked("H200", 8, "DeepSeek-R1-Distill-Qwen-7B", weights=Weight.BF16),
        Layout(dp=1),
    ),
    Reason.STAGES_SEND_NO_KV: (asked("H200", 16), Layout(tp=8)),
    Reason.TENSOR_ACROSS_NODES: (asked("GB200", 16), Layout(tp=16)),
    Reason.SLICES_ACROSS_NODES: (asked("GB200", 16), Layout(dp=16)),
    Reason.NO_RDMA: (asked("H200", 16, fabric=Fabric.RDMA), Layout(dp=16, ep=16)),
    Reason.STAGES_WITH_RDMA: (asked("H200", 16, fabric=Fabric.TCP), Layout(tp=8, pp=2)),
    Reason.FP8_KV: (asked("H200", 8, allowed=frozenset({Reason.FP8_KV})), Layout(tp=8)),
    Reason.MEMORY: (asked("H200", 8), Layout(tp=8)),
    Reason.KV_ROOM: (asked("H100", 16, context_tokens=50_000), Layout(dp=16, ep=16)),
}


@pytest.mark.parametrize("reason", CASES)
def test_each_constraint_refuses_with_its_arithmetic_and_relaxed_it_does_not(
    reason: Reason,
) -> None:
    of, layout, role, kv = CASES[reason]
    refused = verdict(of, layout, role, kv)
    assert refused is not None
    assert refused.reason is reason
    assert any(character.isdigit() for character in refused.why)
    free, changed = RELAXED[reason]
    assert verdict(free, changed, role, kv) is None


def test_every_structural_reason_has_a_case() -> None:
    of_fleets = {Reason.PARTNER, Reason.TTFT, Reason.ITL, Reason.RATE, Reason.OUTDONE}
    assert set(CASES) == set(Reason) - of_fleets


@given(
    st.sampled_from(["H100", "H200", "H20", "B200", "GB200", "MI300X"]),
    st.sampled_from([8, 16, 24, 40]),
    st.sampled_from(list(Fabric)),
    st.data(),
)
@settings(max_examples=30)
def test_waiving_the_first_reason_shows_the_next_until_a_layout_is_legal(
    gpu: str, count: int, fabric: Fabric, data: st.DataObject
) -> None:
    of = asked(gpu, count, fabric=fabric, context_tokens=500_000)
    every = shapes(of)
    shape = data.draw(st.sampled_from(every))
    waived: list[Reason] = []
    while (seen := judge(replace(of, allowed=frozenset(waived)), [shape])[0]) is not None:
        assert seen.reason not in waived
        if waived:
            assert list(Reason).index(seen.reason) > list(Reason).index(waived[-1])
        waived.append(seen.reason)
    assert len(waived) <= len(Reason)


@pytest.mark.parametrize("reason", [Reason.MEMORY, Reason.KV_ROOM])
def test_memory_as_large_as_the_arithmetic_says_is_enough(reason: Reason) -> None:
    of, layout, role, kv = CASES[reason]
    shape = Shape(role, layout, kv, of.full_nodes)
    while (seen := judge(of, [shape])[0]) is not None:
        assert seen.reason in (Reason.MEMORY, Reason.KV_ROOM)
        larger = int(of.gpu.memory_bytes * 1.05)
        of = replace(of, gpu=replace(of.gpu, memory_bytes=larger))
    assert of.gpu.memory_bytes < 4 * HARDWARE["H100"].memory_bytes


def test_nodes_of_one_nvlink_domain_may_share_a_tensor_parallel_group() -> None:
    assert verdict(asked("GB200", 8), Layout(tp=8)) is None


def test_a_context_that_does_not_fit_is_said_in_tokens() -> None:
    refused = verdict(asked("H200", 8, context_tokens=10**7), Layout(tp=8))
    assert refused is not None
    assert refused.reason is Reason.KV_ROOM
    assert "10,000,000" in refused.why


@pytest.mark.parametrize(("gpu", "count"), [("H200", 32), ("GB200", 72), ("H100", 8), ("H20", 16)])
def test_shapes_are_all_different_and_use_whole_nodes_or_a_part_of_one(
    gpu: str, count: int
) -> None:
    of = asked(gpu, count)
    every = shapes(of)
    assert len({(shape.role, shape.name, shape.nodes) for shape in every}) == len(every)
    for shape in every:
        assert shape.gpus <= count
        assert shape.gpus == shape.nodes * of.gpus_per_node or (
            shape.nodes == 1 and of.gpus_per_node % shape.gpus == 0
        )


def test_grids_are_in_the_order_of_their_shapes() -> None:
    of = asked("H200", 16)
    some = [shape for shape in shapes(of) if shape.kv is Kv.BF16][::37]
    assert grid_of(of, some).gpus.tolist() == [shape.gpus for shape in some]


def test_nodes_unlike_most_are_for_small_gangs_only() -> None:
    nodes = (*machines("H200", 16), *(replace(node, name="x") for node in machines("H200", 4)))
    of = asked(nodes=nodes)
    assert (of.gpus_per_node, of.full_nodes, of.gpus) == (8, 2, 20)
    assert max(shape.nodes for shape in shapes(of)) == 2
