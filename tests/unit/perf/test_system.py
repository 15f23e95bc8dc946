"""Fleets under load: Little's law, and that more load is never better for those who wait."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    ClosedLoop,
    Layout,
    LayoutGrid,
    OpenLoop,
    Precision,
    Traffic,
    cold_start_s,
    disaggregated,
    kv_transfer_s,
    unified,
)
from tests.unit.perf.grids import LAYOUTS, grid, layouts

CHAT = Traffic(input_tokens=2000, output_tokens=500)
LOADS = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048])
traffics = st.builds(
    Traffic,
    input_tokens=st.floats(50, 60_000),
    output_tokens=st.floats(50, 20_000),
    prefix_hit=st.floats(0, 0.95),
)


@settings(max_examples=20)
@given(layouts, traffics)
def test_more_concurrency_is_never_faster_for_a_request(layout: Layout, traffic: Traffic) -> None:
    found = unified(grid(layout, "B300").column(), 1, traffic, ClosedLoop(LOADS))
    assert (np.diff(found.tpot_s) >= -1e-6 * found.tpot_s[:, 1:]).all()
    stay = found.concurrency / found.request_rate
    assert (np.diff(stay) >= -1e-6 * stay[:, 1:]).all()
    assert (np.diff(found.request_rate) >= -1e-5 * found.request_rate[:, 1:]).all()


@settings(max_examples=20)
@given(layouts, traffics)
def test_more_arrivals_are_never_faster_until_the_fleet_is_saturated(
    layout: Layout, traffic: Traffic
) -> None:
    rates = np.geomspace(1e-3, 1e6, 19)
    found = unified(grid(layout, "B300").column(), 1, traffic, OpenLoop(rates))
    assert (np.diff(found.tpot_s) >= -1e-6 * found.tpot_s[:, 1:]).all()
    assert (found.ttft_s[:, 1:] >= found.ttft_s[:, :-1] * (1 - 1e-6)).all()
    assert found.saturated[0, -1]
    assert np.isinf(found.ttft_s[0, -1])
    served = ~found.saturated
    assert np.allclose(found.request_rate[served], np.broadcast_to(rates, served.shape)[served])


@settings(max_examples=20)
@given(layouts, layouts, traffics)
def test_little_s_law_holds(prefill: Layout, decode: Layout, traffic: Traffic) -> None:
    load = ClosedLoop(LOADS)
    for found in (
        unified(grid(decode, "B300").column(), 2, traffic, load),
        disaggregated(
            grid(prefill, "B300").column(), 2, grid(decode, "B300").column(), 3, traffic, load
        ),
    ):
        stay = found.ttft_s + found.tpot_s * np.maximum(np.asarray(traffic.output_tokens) - 1, 1)
        assert np.allclose(found.request_rate * stay, found.concurrency, rtol=0.02)
        assert np.allclose(found.concurrency, LOADS)
        assert (found.prefill_load <= 1 + 1e-6).all()


def test_a_fleet_of_twice_the_gangs_serves_twice_the_load_alike() -> None:
    one = unified(grid(Layout(tp=8)), 1, CHAT, OpenLoop(1.0))
    two = unified(grid(Layout(tp=8)), 2, CHAT, OpenLoop(2.0))
    assert two.tpot_s == pytest.approx(one.tpot_s)
    assert two.ttft_s == pytest.approx(one.ttft_s)
    assert two.output_tokens_per_s_per_gpu == pytest.approx(one.output_tokens_per_s_per_gpu)


def test_prefill_apart_spares_decodes_the_wait() -> None:
    load, prompts = OpenLoop(6.0), Traffic(input_tokens=6000, output_tokens=200)
    gang = grid(Layout(dp=8, ep=8))
    together = unified(gang, 2, prompts, load)
    apart = disaggregated(gang, 1, gang, 1, prompts, load)
    assert not together.saturated[0]
    assert not apart.saturated[0]
    assert apart.tpot_s[0] < together.tpot_s[0]


def test_requests_wait_where_kv_has_no_room() -> None:
    long = Traffic(input_tokens=100_000, output_tokens=1000)
    found = unified(grid(Layout(tp=8)), 1, long, ClosedLoop(np.array([1.0, 500.0])))
    assert found.kv_limited.tolist() == [False, True]
    assert found.decode_batch[1] < 10


def test_a_cached_prefix_and_drafts_help() -> None:
    half = Traffic(input_tokens=20_000, output_tokens=500, prefix_hit=0.5)
    whole = Traffic(input_tokens=20_000, output_tokens=500)
    one = ClosedLoop(1.0)
    assert unified(grid(Layout(tp=8)), 1, half, one).ttft_s < (
        unified(grid(Layout(tp=8)), 1, whole, one).ttft_s
    )
    plain, drafts = (unified(grid(Layout(tp=8, mtp_drafts=d)), 1, CHAT, one) for d in (0, 1))
    assert drafts.tpot_s < 0.75 * plain.tpot_s
    assert Traffic(1, 1).accepted(np.array([0.0, 1.0, 3.0])) == pytest.approx(
        [1, 1.86, 2.67], abs=0.02
    )
    assert Traffic(1, 1, accept_tokens=2.2).accepted(np.array([0.0, 3.0])).tolist() == [1, 2.2]


def test_a_grid_of_layouts_and_loads_is_the_same_as_each_alone() -> None:
    model, gpu = ARCHITECTURES["DeepSeek-R1"], HARDWARE["B300"]
    whole = LayoutGrid.of(LAYOUTS, model, gpu, grid(LAYOUTS[0]).precision, grid(LAYOUTS[0]).engine)
    found = unified(whole.column(), 1, CHAT, ClosedLoop(LOADS))
    assert found.tpot_s.shape == (len(LAYOUTS), len(LOADS))
    for row, layout in enumerate(LAYOUTS):
        alone = unified(grid(layout, gpu), 1, CHAT, ClosedLoop(float(LOADS[5])))
        assert found.tpot_s[row, 5] == pytest.approx(alone.tpot_s[0])
        assert found.gpus[row, 5] == layout.gpus
    picked = whole.take(np.array([3, 3, 0]))
    assert picked.gpus.tolist() == [16, 16, 8]


def test_kv_moves_at_the_speed_of_the_nics() -> None:
    moved = kv_transfer_s(grid(Layout(dp=8, ep=8)), 4000)
    assert 4000 * 70_272 / 50e9 < moved[0] * 1.1 < 0.02
    assert kv_transfer_s(grid(Layout(tp=8)), 4000)[0] < moved[0]


def test_a_cold_start_reads_the_weights() -> None:
    fast, slow = (cold_start_s(grid(Layout(tp=8)), rate)[0] for rate in (20e9, 2e9))
    assert slow - fast == pytest.approx(690e9 / 2e9 - 690e9 / 20e9, rel=0.05)
    shared = cold_start_s(grid(Layout(tp=8, pp=2), "H100"), 2e9, shared_storage=True)[0]
    assert shared == pytest.approx(slow, rel=0.08)  # 61 layers do not halve


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_model_of_the_catalogue_can_be_served(name: str) -> None:
    points = LayoutGrid.of(
        [Layout(tp=8), Layout(tp=4, dp=2)], ARCHITECTURES[name], HARDWARE["H200"], Precision()
    )
    found = unified(points.column(), 1, CHAT, ClosedLoop(LOADS))
    assert np.isfinite(found.ttft_s).all()
    assert (found.request_rate > 0).all()
