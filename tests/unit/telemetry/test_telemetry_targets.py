"""Processes that announce themselves, and their expositions as one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.telemetry.merge import merged
from orchestrator.telemetry.targets import Target, announce, announced


def test_what_is_announced_is_found_until_it_is_taken_back(tmp_path: Path) -> None:
    target = Target("gang-1/0", "10.0.0.1:9000", "R1", "decode", "gang-1", "0", (0, 1))
    path = announce(tmp_path / "targets", target)
    assert list(announced(tmp_path / "targets").values()) == [target]
    path.unlink()
    assert announced(tmp_path / "targets") == {}


def test_processes_of_one_name_announce_themselves_at_once(tmp_path: Path) -> None:
    targets = [Target("gateway-1", f"127.0.0.1:{port}") for port in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda target: announce(tmp_path, target), targets))
    assert [target in targets for target in announced(tmp_path).values()] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["gateway-1.json"]


def test_a_file_that_is_no_target_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"process": 1}')
    assert announced(tmp_path) == {}
    assert announced(tmp_path / "nowhere") == {}


ONE = b"""# HELP a_total What a is.
# TYPE a_total counter
a_total{x="1"} 2.0
a_total 3.0
# HELP h_seconds H.
# TYPE h_seconds histogram
h_seconds_bucket{le="+Inf"} 1.0
h_seconds_sum 0.5
h_seconds_count 1.0
"""
OTHER = b"""# HELP a_total What a is to others.
# TYPE a_total counter
a_total{x="1"} 7.0
b{} 1
"""


def test_texts_of_several_processes_become_one_that_prometheus_reads() -> None:
    text = merged([("", ONE), ("other", OTHER)]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["a_total", ("x", "1")] == 2
    assert values["a_total", ("process", "other"), ("x", "1")] == 7
    assert values["h_seconds_count",] == 1
    assert values["b", ("process", "other")] == 1
    assert text.count("# TYPE a_total") == 1


def test_a_familys_samples_stand_together() -> None:
    text = merged([("p", ONE), ("q", ONE)]).decode()
    names = [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert names == ["a_total"] * 4 + [
        *("h_seconds_bucket", "h_seconds_sum", "h_seconds_count"),
        *("h_seconds_bucket", "h_seconds_sum", "h_seconds_count"),
    ]


def test_nothing_is_merged_into_nothing() -> None:
    assert merged([]) == b""
    assert merged([("p", b"")]) == b""
