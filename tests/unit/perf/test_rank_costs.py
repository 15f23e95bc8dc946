"""Routing's few numbers of a rank against the step-time model that they stand for."""

import numpy as np
import pytest

from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    Layout,
    LayoutGrid,
    Precision,
    Traffic,
    decode_step,
    kv_transfer_s,
    prefill_step,
    rank_costs,
)

TRAFFIC = Traffic(input_tokens=4000, output_tokens=1000)
LAYOUTS = (
    ("H200", Layout(tp=8), 32),
    ("H200", Layout(dp=8, ep=8), 32),
    ("H200", Layout(dp=32, ep=32, mtp_drafts=1), 128),
    ("H100", Layout(tp=8, pp=2), 64),
)


def grid(gpu: str, layout: Layout) -> LayoutGrid:
    return LayoutGrid.of([layout], ARCHITECTURES["DeepSeek-R1"], HARDWARE[gpu], Precision())


@pytest.mark.parametrize(("gpu", "layout", "batch"), LAYOUTS)
def test_around_the_working_point_they_say_what_the_model_says(
    gpu: str, layout: Layout, batch: int
) -> None:
    one = grid(gpu, layout)
    costs = rank_costs(one, TRAFFIC, batch)
    for requests in (batch / 2, batch):
        step_s = decode_step(one, requests, 4500).total_s / TRAFFIC.accepted(one.mtp_drafts)
        assert costs.step_s(requests, requests * 4500) == pytest.approx(float(step_s[0]), rel=0.2)
    for prompt, hit in ((1000, 0), (4000, 0), (6000, 4000)):
        new = prompt - hit
        prefill_s = prefill_step(one, new, hit + new / 2).total_s / layout.pp
        assert costs.prefill_s(prompt, hit) == pytest.approx(float(prefill_s[0]), rel=0.2)
    moved_s = float(kv_transfer_s(one, 4000)[0])
    assert costs.transfer_s(4000) == pytest.approx(moved_s, rel=0.01)


def test_more_work_never_costs_less() -> None:
    for gpu, layout, batch in LAYOUTS:
        costs = rank_costs(grid(gpu, layout), TRAFFIC, batch)
        lengths = np.array([1, 100, 1000, 10_000, 100_000])
        prefills = [costs.prefill_s(int(tokens), 0) for tokens in lengths]
        assert prefills == sorted(prefills)
        assert costs.prefill_s(10_000, 9_000) < costs.prefill_s(10_000, 0)
        assert min(costs.step_base_s, costs.step_request_s, costs.step_token_s) >= 0
