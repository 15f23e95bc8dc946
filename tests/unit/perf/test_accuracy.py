"""Statistics of errors, and the bands that plans take from them."""

from dataclasses import replace

import pytest

from orchestrator.cli.accuracy_report import groups_text
from orchestrator.cli.figures_text import published_text
from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    Band,
    EngineFamily,
    Extrapolated,
    Mode,
    error_band,
    shipped_factors,
)
from orchestrator.perf.accuracy import Point, judged, predict_rows, statistics, targets
from orchestrator.perf.bands import groups
from orchestrator.perf.cases import cases_of
from orchestrator.perf.figures import read_figures

ROWS = read_figures(published_text())
POINTS = predict_rows(ROWS, shipped_factors())
CASE = next(cases_of(ROWS))


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(CASE, "tpot", predicted, measured) for predicted, measured in pairs]


def test_statistics_of_known_errors() -> None:
    found = statistics(points((1.1, 1), (1.8, 2), (6, 4)))
    assert found.mape == pytest.approx((0.1 + 0.1 + 0.5) / 3)
    assert found.median == pytest.approx(0.1)
    assert found.bias == pytest.approx((0.1 - 0.1 + 0.5) / 3)
    assert found.within_20 == pytest.approx(2 / 3)
    assert found.spearman == pytest.approx(1)
    assert statistics(points((1, 1), (2, 3))).spearman is None
    assert statistics(points((3, 1), (2, 2), (1, 3))).spearman == pytest.approx(-1)


def test_every_metric_of_every_case_is_predicted_in_the_rows_order() -> None:
    cases = list(cases_of(ROWS))
    assert list(dict.fromkeys(p.case.id for p in POINTS)) == [c.id for c in cases]
    assert all(p.predicted > 0 for p in POINTS)


def test_rows_are_judged_only_if_kept_apart_clean_and_no_burst() -> None:
    assert judged(POINTS)
    assert all(p.case.use == "validate" and p.case.clean for p in judged(POINTS))
    assert not any(p.case.max_throughput for p in judged(POINTS))
    assert judged([replace(POINTS[0], case=replace(CASE, use="calibrate"))]) == []


def test_step_tpot_wide_ep_prefill_and_ranking_reach_their_targets() -> None:
    found = {target.name.split(",")[0]: target for target in targets(POINTS)[::-1]}
    for name in (
        "step TPOT",
        "request rate",
        "wide-EP decode tokens/s/GPU",
        "prefill tokens/s/GPU",
    ):
        assert found[name].met, found[name]


def test_the_groups_in_the_package_are_those_of_the_shipped_factors() -> None:
    text = groups_text(POINTS)
    assert all(f"p90: {group.p90}" in text for group in groups())
    assert len(groups()) == text.count("p90:")


def test_a_band_is_that_of_the_nearest_group() -> None:
    same = error_band(HARDWARE["H200"], EngineFamily.TRTLLM, Mode.DISAGGREGATED)
    assert isinstance(same, Band)
    assert same.group == "H200 trtllm disaggregated"
    assert 0 < same.p90 < 0.4
    other = error_band(HARDWARE["H200"], EngineFamily.VLLM, Mode.UNIFIED)
    assert isinstance(other, Band)
    assert other.group.startswith("H200 sglang")
    kin = error_band(HARDWARE["GB300"], EngineFamily.TRTLLM, Mode.DISAGGREGATED)
    assert isinstance(kin, Band)
    assert kin.group.startswith(("B200", "GB200"))


def test_what_was_never_measured_has_no_band() -> None:
    h200, vllm = HARDWARE["H200"], EngineFamily.VLLM
    for found in (
        error_band(HARDWARE["MI300X"], vllm, Mode.UNIFIED),
        error_band(HARDWARE["H20"], vllm, Mode.UNIFIED),
        error_band(h200, vllm, Mode.UNIFIED, context_tokens=40_000),
        error_band(h200, vllm, Mode.UNIFIED, pipeline_nodes=2),
        error_band(h200, vllm, Mode.UNIFIED, model=ARCHITECTURES["DeepSeek-R1-Distill-Qwen-7B"]),
    ):
        assert isinstance(found, Extrapolated)
        assert found.reason
