"""The memory ledger: it adds up, never over the GPU, and holds what is known to fit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    Gpu,
    Layout,
    LayoutGrid,
    Precision,
    Weight,
    ledger,
)
from tests.unit.perf.grids import FP8, LAYOUTS, NVFP4, gpus, grid, layouts, precisions

WEIGHTS = ("embedding_and_head", "attention", "dense_layers", "shared_experts", "routed_experts")


@given(layouts, gpus, precisions, st.sampled_from(sorted(ARCHITECTURES)))
def test_components_add_up_to_the_total_and_never_exceed_a_gpu_that_fits(
    layout: Layout, gpu: Gpu, precision: Precision, name: str
) -> None:
    found = ledger(LayoutGrid.of([layout], ARCHITECTURES[name], gpu, precision))
    assert all((part >= 0).all() for part in found.components.values())
    total = np.sum(list(found.components.values()), axis=0)
    assert np.allclose(total, found.total_bytes)
    if found.fits[0]:
        assert found.total_bytes[0] <= found.capacity_bytes[0] * (1 + 1e-12)
        assert found.capacity_bytes[0] == gpu.memory_bytes
        assert found.short_bytes[0] == 0
    else:
        assert found.components["kv"][0] == 0
        assert found.kv_tokens[0] == 0
        assert np.isclose(found.total_bytes[0] - found.short_bytes[0], found.capacity_bytes[0])


def test_r1_in_fp8_does_not_fit_eight_gpus_of_80_gb_and_fits_eight_of_141() -> None:
    for layout in (Layout(tp=8), Layout(tp=8, ep=8)):
        assert not ledger(grid(layout, "H100")).fits[0]
        assert not ledger(grid(layout, "H800")).fits[0]
        assert ledger(grid(layout, "H200")).fits[0]
    assert ledger(grid(Layout(tp=8, pp=2), "H100")).fits[0]
    assert ledger(grid(Layout(tp=4), "B200", NVFP4)).fits[0]
    assert not ledger(grid(Layout(tp=2), "B200", NVFP4)).fits[0]


def test_weights_of_a_tensor_parallel_gang_are_the_models() -> None:
    parts = ledger(grid(Layout(tp=8))).components
    held = 8 * sum(parts[name][0] for name in WEIGHTS)
    model = ARCHITECTURES["DeepSeek-R1"]
    copied = 7 * model.layers * model.attention.replicated(model.hidden)
    whole = model.checkpoint_bytes(Weight.FP8) - model.mtp_params - 2 * 2 * model.embedding_params
    assert np.isclose(held - copied, whole, rtol=2e-3)  # less the router, norms and scales


def test_tensor_parallelism_copies_the_latent_and_data_parallelism_does_not() -> None:
    copied, apart = ledger(grid(Layout(tp=8, ep=8))), ledger(grid(Layout(dp=8, ep=8)))
    assert copied.kv_tokens[0] < 1.1 * copied.kv_tokens_per_rank[0]
    assert apart.kv_tokens[0] == 8 * apart.kv_tokens_per_rank[0]
    assert apart.kv_tokens[0] > 4 * copied.kv_tokens[0]


@given(layouts)
def test_redundant_experts_and_drafts_take_room_from_kv(layout: Layout) -> None:
    plain = Layout(layout.tp, layout.pp, layout.dp, layout.ep)
    more = Layout(layout.tp, layout.pp, layout.dp, layout.ep, redundant_experts=layout.ep)
    drafts = Layout(layout.tp, layout.pp, layout.dp, layout.ep, mtp_drafts=1)
    room = ledger(grid(plain, "B300")).kv_tokens[0]
    assert ledger(grid(more, "B300")).kv_tokens[0] < room
    assert ledger(grid(drafts, "B300")).kv_tokens[0] < room


def test_a_grid_is_evaluated_at_once_and_in_order() -> None:
    whole = LayoutGrid.of(LAYOUTS, ARCHITECTURES["DeepSeek-R1"], HARDWARE["H200"], FP8)
    for index, layout in enumerate(LAYOUTS):
        alone = ledger(grid(layout))
        assert ledger(whole).total_bytes[index] == alone.total_bytes[0]
