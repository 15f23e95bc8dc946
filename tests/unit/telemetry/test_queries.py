"""Every query of every board and rule asks for what there is, by names and labels that it has."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.telemetry import metrics
from orchestrator.telemetry.alerts import ALERTS
from orchestrator.telemetry.boards import BOARDS
from orchestrator.telemetry.promql import reads
from orchestrator.telemetry.rule_files import rule_files
from orchestrator.telemetry.rules import recording_groups
from tests.unit.telemetry.promtool import promtool

CAPTURED = Path(__file__).parent / "captured"
# What Prometheus and the telemetry process put on every sample; dcgm-exporter's before we rename.
ALWAYS = frozenset({"instance", "job", "process"})
# Names that a rule asks for and that only one of the exporter's two generations has.
GENERATIONS = ("dcgm-exporter-4.8.txt", "dcgm-exporter-4.9.txt")


def queries() -> Iterator[tuple[str, str]]:
    """Each query with where it stands."""
    for group in recording_groups():
        for rule in group.rules:
            yield rule.name, rule.query
    for alert in ALERTS:
        yield alert.name, alert.query
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield f"{board.uid}: {panel.title}", query.promql


def captured(name: str) -> dict[str, frozenset[str]]:
    """Labels by series of one file."""
    found: dict[str, frozenset[str]] = {}
    for line in (CAPTURED / name).read_text().splitlines():
        if not line.startswith("#"):
            series, _, labels = line.partition(" ")
            found[series] = found.get(series, frozenset()) | frozenset(
                filter(None, labels.split(","))
            )
    return found


def known() -> dict[str, frozenset[str]]:
    """Labels by series, of all that can be asked for but recording rules."""
    found = {
        series: frozenset(label.name for label in metric.labels)
        for metric in metrics.CATALOGUE
        for series in metric.series
    }
    for path in CAPTURED.glob("*.txt"):
        found |= captured(path.name)
    dcgm = frozenset({"gpu", "node", "source", "UUID", "hostname", "Hostname"})
    found |= {series: dcgm for series in found if series.startswith("DCGM_")}
    kube = frozenset({"pod", "namespace", "condition", "container"})
    return found | {series: kube for series in found if series.startswith("kube_")}


RECORDED = {rule.name: rule.query for group in recording_groups() for rule in group.rules}


def labels_of(series: str) -> frozenset[str]:
    """The labels that the samples of a series may have."""
    if series not in RECORDED:
        return known()[series]
    read = reads(RECORDED[series])
    found = set(re.findall(r'label_replace\(.*?, "(\w+)", "', RECORDED[series]))
    for each in read.series:
        found |= labels_of(each)
    return frozenset(found)


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_a_query_asks_for_series_and_labels_that_there_are(where: str, query: str) -> None:
    read = reads(query)
    assert read.series, where
    unknown = read.series - known().keys() - RECORDED.keys()
    assert unknown == set(), f"{where}: nobody has {sorted(unknown)}"
    there = frozenset().union(*(labels_of(series) for series in read.series)) | ALWAYS
    made = set(re.findall(r'label_replace\(.*?, "(\w+)", "', query))
    assert read.labels - there - made == set(), where


def test_a_legend_names_labels_that_the_series_have() -> None:
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                asked = set(re.findall(r"{{(\w+)}}", query.legend))
                read = reads(query.promql)
                there = frozenset().union(*(labels_of(each) for each in read.series)) | ALWAYS
                assert asked <= there, (board.uid, panel.title, asked - there)


def test_rules_that_read_gpus_read_both_generations_of_the_exporter() -> None:
    old, new = (captured(name).keys() for name in GENERATIONS)
    asked = {name for query in RECORDED.values() for name in reads(query).series}
    dcgm = {name for name in asked if name.startswith("DCGM_")}
    assert dcgm <= old | new
    for name, query in RECORDED.items():
        read = reads(query).series
        renamed = {"r1:gpu_pcie_replays:total", "r1:gpu_ecc_uncorrected:total"}
        if read & old and name not in renamed:
            assert read & new, f"{name} reads no name of dcgm-exporter 4.9"


def test_a_name_that_nobody_has_is_noticed() -> None:
    read = reads("sum by (model) (rate(r1_request_total[5m])) / vllm:gpu_cache_usage_perc")
    assert read.series == {"r1_request_total", "vllm:gpu_cache_usage_perc"}
    assert not read.series & known().keys()


def test_what_is_read_of_a_query_is_its_series_and_labels() -> None:
    read = reads(
        'histogram_quantile(0.99, sum by (le, class) (rate(a_bucket{x="b{c}", y!~"d"}[5m:1m])))'
        " > 1e6 unless on (model) e offset 1h"
    )
    assert read.series == {"a_bucket", "e"}
    assert read.labels == {"class", "x", "y", "model"}


def test_prometheus_takes_every_rule_and_every_query_of_a_board(tmp_path: Path) -> None:
    for name, text in rule_files().items():
        (tmp_path / name).write_text(text)
    panels = [{"record": f"panel:{at}", "expr": query} for at, (_, query) in enumerate(queries())]
    boards = {"groups": [{"name": "boards", "rules": panels}]}
    (tmp_path / "boards.yaml").write_text(yaml.safe_dump(boards))
    files = sorted(map(str, tmp_path.glob("*.yaml")))
    checked = subprocess.run(
        [promtool(), "check", "rules", *files], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_panel_says_why_it_may_be_empty() -> None:
    for board in BOARDS:
        for panel in board.panels:
            assert panel.absent.endswith("."), (board.uid, panel.title)
        titles = [panel.title for panel in board.panels]
        assert len(set(titles)) == len(titles), board.uid
