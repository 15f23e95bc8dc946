"""The catalogue keeps its own rules, and what is generated from it is current."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.telemetry import Kind, Metrics, metrics
from orchestrator.telemetry.alerts import ALERTS
from orchestrator.telemetry.metrics.labels import Slo
from orchestrator.telemetry.metrics.metric import Bound, Metric, Unit

ROOT = Path(__file__).parents[3]
_NEVER = frozenset({"request", "request_id", "tenant", "user", "session", "key"})


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=lambda metric: metric.name)
def test_a_metric_is_named_for_its_kind_and_unit(metric: Metric) -> None:
    base = metric.name.removesuffix("_total")
    assert metric.name.startswith("r1_")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    if metric.unit is Unit.MONEY:
        assert base.endswith(("_price", "_revenue"))
    elif metric.unit is not Unit.NONE:
        assert base.endswith(f"_{metric.unit}"), metric.name
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=lambda metric: metric.name)
def test_no_metric_can_have_a_series_for_each_request_or_tenant(metric: Metric) -> None:
    assert not {label.name for label in metric.labels} & _NEVER
    series = 1
    for label in metric.labels:
        if label.bound is Bound.ENUM:
            series *= len(label.values)
    assert series <= 128, f"{metric.name} has {series} series of each model, class or rank"


def test_the_exposition_is_prometheus_text_with_all_that_was_set() -> None:
    counted = Metrics()
    counted.count(metrics.REQUESTS, 2, "m", 'c"\\\n', "stop")
    counted.set(metrics.USAGE_FAULT, 1)
    for value in (0.01, 0.3, 200.0):
        counted.observe(metrics.TTFT, value, "m", "")
    families = {
        family.name: family
        for family in text_string_to_metric_families(counted.exposition().decode())
    }
    assert set(families) == {"r1_requests", "r1_usage_fault", "r1_ttft_seconds"}
    (sample,) = families["r1_requests"].samples
    assert sample.value == 2
    assert sample.labels == {"model": "m", "class": 'c"\\\n', "outcome": "stop"}
    histogram = {
        (one.name, one.labels.get("le")): one.value for one in families["r1_ttft_seconds"].samples
    }
    assert histogram["r1_ttft_seconds_bucket", "0.05"] == 1
    assert histogram["r1_ttft_seconds_bucket", "0.5"] == 2
    assert histogram["r1_ttft_seconds_bucket", "+Inf"] == 3
    assert histogram["r1_ttft_seconds_count", None] == 3
    assert histogram["r1_ttft_seconds_sum", None] == pytest.approx(200.31)


def test_a_bucket_holds_what_equals_its_bound() -> None:
    counted = Metrics()
    counted.observe(metrics.TTFT, 0.05, "m", "")
    assert b'le="0.05"} 1.0' in counted.exposition()


def test_a_value_that_the_catalogue_does_not_list_is_a_programmers_error() -> None:
    counted = Metrics()
    with pytest.raises(AssertionError):
        counted.count(metrics.SLO, 1, "m", "", "kept perhaps")
    with pytest.raises(AssertionError):
        counted.count(metrics.SLO, 1, "m", "")
    counted.count(metrics.SLO, 1, "m", "", Slo.KEPT)


def test_what_is_forgotten_has_no_sample_and_others_keep_theirs() -> None:
    counted = Metrics()
    for model in ("a", "b"):
        counted.set(metrics.SLOTS, 3, model)
    counted.forget(metrics.SLOTS, "a")
    text = counted.exposition()
    assert b'model="b"' in text
    assert b'model="a"' not in text


def test_what_only_the_moment_knows_is_looked_up_when_somebody_asks() -> None:
    counted, asked = Metrics(), list[int]()
    counted.before_exposition(lambda: asked.append(1))
    assert asked == []
    counted.exposition()
    assert asked == [1]


def test_every_alert_has_a_runbook_with_the_same_three_questions_and_no_runbook_is_left() -> None:
    folder = ROOT / "docs/runbooks"
    for alert in ALERTS:
        text = (ROOT / alert.runbook).read_text()
        assert text.startswith(f"# {alert.name}\n")
        for heading in ("## What it means", "## What to look at", "## What to do"):
            assert heading in text, (alert.name, heading)
    named = {alert.name for alert in ALERTS}
    assert {path.stem for path in folder.glob("*.md")} == named
    assert len(named) == len(ALERTS)


def test_generated_files_are_current() -> None:
    from deploy.telemetry.write import written

    for path, text in written().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: run `make telemetry`"
