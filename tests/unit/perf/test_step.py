"""Step times: what physics says must hold whatever the factors are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.perf import (
    Gpu,
    Layout,
    LayoutGrid,
    Precision,
    decode_step,
    prefill_step,
    shipped_factors,
)
from orchestrator.perf.layout import EngineFamily
from orchestrator.perf.point import Point
from orchestrator.perf.step import nodes_hit
from orchestrator.spec import Fabric
from tests.unit.perf.grids import R1, engines, faster, gpus, grid, layouts, precisions

NUMBERS = ("bandwidth", "bf16_flops", "fp8_flops", "fp4_flops", "link_bandwidth", "nic_bandwidth")
batches = st.floats(0.01, 2048)
contexts = st.floats(1, 200_000)
NEVER_FASTER = 1 - 1e-9


@given(layouts, gpus, precisions, engines, batches, contexts)
def test_terms_add_up_and_only_overlap_is_negative(
    layout: Layout,
    gpu: Gpu,
    precision: Precision,
    engine: EngineFamily,
    batch: float,
    context: float,
) -> None:
    points = LayoutGrid.of([layout], R1, gpu, precision, engine)
    for step in (decode_step(points, batch, context), prefill_step(points, batch, context)):
        assert np.isclose(step.total_s, np.sum(list(step.terms.values()), axis=0))
        assert (step.total_s > 0).all()
        assert all((v >= 0).all() for name, v in step.terms.items() if name != "overlap")


@given(layouts, gpus, precisions, st.sampled_from(NUMBERS), st.floats(1, 10), batches, contexts)
def test_a_better_gpu_is_never_slower(
    layout: Layout,
    gpu: Gpu,
    precision: Precision,
    number: str,
    times: float,
    batch: float,
    context: float,
) -> None:
    before = grid(layout, gpu, precision)
    after = grid(layout, faster(gpu, number, times), precision)
    for step in (decode_step, prefill_step):
        slow, fast = step(before, batch, context), step(after, batch, context)
        assert fast.total_s[0] <= slow.total_s[0] / NEVER_FASTER


@given(layouts, gpus, batches, contexts, st.floats(1, 20))
def test_longer_context_and_larger_batches_are_never_faster(
    layout: Layout, gpu: Gpu, batch: float, context: float, times: float
) -> None:
    points = grid(layout, gpu)
    for step in (decode_step, prefill_step):
        now = step(points, batch, context).total_s[0]
        assert step(points, batch, context * times).total_s[0] >= now * NEVER_FASTER
        if step is decode_step:  # a larger part of a prompt has less of it in the cache
            assert step(points, batch * times, context).total_s[0] >= now * NEVER_FASTER


@given(layouts, gpus, batches, contexts)
def test_a_network_without_rdma_is_never_faster(
    layout: Layout, gpu: Gpu, batch: float, context: float
) -> None:
    arguments = ([layout], R1, gpu, Precision(), EngineFamily.VLLM)
    rdma = decode_step(LayoutGrid.of(*arguments, Fabric.RDMA), batch, context)
    tcp = decode_step(LayoutGrid.of(*arguments, Fabric.TCP), batch, context)
    assert tcp.total_s[0] >= rdma.total_s[0] * NEVER_FASTER


def test_a_lone_sequence_reads_the_weights_of_eight_experts() -> None:
    step = decode_step(grid(Layout(tp=8)), 1.0, 1000.0)
    read = 8 * 58 * 44_040_192 / 8 / 4.8e12  # chosen experts, layers, bytes; of eight GPUs
    memory = shipped_factors().values["expert_memory"]
    assert read < step.terms["experts"][0] < 1.3 * read / memory
    assert decode_step(grid(Layout(tp=8)), 1e-9, 1000.0).total_s == step.total_s


def test_wide_expert_parallelism_reads_less_and_sends_more() -> None:
    narrow = decode_step(grid(Layout(dp=8, ep=8)), 64.0, 4000.0).terms
    wide = decode_step(grid(Layout(dp=32, ep=32)), 64.0, 4000.0).terms
    assert wide["experts"][0] < narrow["experts"][0]
    assert wide["communication"][0] > narrow["communication"][0]
    assert wide["attention"][0] == pytest.approx(narrow["attention"][0])


def test_pipeline_stages_halve_no_token_latency() -> None:
    one = decode_step(grid(Layout(tp=8), "B300"), 1.0, 4000.0).total_s[0]
    two = decode_step(grid(Layout(tp=8, pp=2), "B300"), 1.0, 4000.0).total_s[0]
    assert two >= one


def test_a_token_hits_as_many_nodes_as_its_groups_of_experts_lie_on() -> None:
    point = Point.of(grid(Layout(dp=8, ep=8)))
    hit = nodes_hit(point, np.array([1.0, 2, 4, 8, 32]))
    assert hit == pytest.approx([1, 2 * (1 - 1 / 70), 4 * (1 - 15 / 70), 4, 7])


def test_redundant_experts_and_perfect_balance_spare_the_busiest_rank() -> None:
    left, rebalanced = (
        decode_step(grid(Layout(dp=64, ep=64, redundant_experts=r)), 128.0, 2000.0) for r in (0, 64)
    )
    assert rebalanced.terms["experts"][0] < left.terms["experts"][0]
