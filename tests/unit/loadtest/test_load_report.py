"""The report: the answer first, everything it asks for, and one message for each mistake."""

import json
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from loadtest.reading import Point, points
from loadtest.result import Bottleneck, Capacity, Result, Verdict
from loadtest.sizing import limit_of, nodes_needed
from orchestrator.cli import main
from tests.made_result import SLO, made_result, slower

LOADS = (1.0, 2.0, 3.0, 4.0, 4.4, 4.7, 5.0, 5.4, 6.0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    workload = "input=2000,output=1000,rate=4"
    words = ("plan", "--gpus", "8xH200", "--workload", workload, "--price", "2.5")
    assert main([*words, "--slo", "ttft=2s,itl=50ms", "--format", "values", "-o", str(path)]) == 0
    return path


def written(path: Path, result: Result) -> Path:
    path.write_bytes(msgspec.json.encode(result))
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["bench", "report", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("r1-serve: ")
    assert printed.err.count("\n") == 2
    return printed.err


def test_the_page_is_whole_and_the_json_beside_it_says_the_same(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "run.json", made_result(plan, LOADS, slower(1.2)))
    out = tmp_path / "report.html"
    words = ("--plan", str(plan), "--target", "20", "--out", str(out))
    assert main(["bench", "report", str(path), *words]) == 0
    said = capsys.readouterr().out
    page, tree = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    HTMLParser().feed(page)
    assert "<script" not in page
    assert "http-equiv" not in page
    assert tree["answer"] in said
    assert tree["answer"].replace("≤", "≤") in page
    for part in ("against load", "Goodput", "Phases", "Against the plan", "Cost", "Every load"):
        assert part in page
    assert 4.0 < tree["capacity"]["low_per_s"] <= tree["capacity"]["per_s"] < 6.0
    assert tree["gives_way"]["word"] == "decode"
    need = tree["nodes_needed"]
    assert need["low"] <= need["nodes"] <= need["high"]
    assert need["nodes"] in (4, 5)
    first = tree["loads"][0]
    assert first["server"]["r1_gpu_sm_active_ratio"] > 0.3
    gpu_s = 8 * 2.5 / 3600
    assert first["usd_per_million_tokens"] == pytest.approx(gpu_s / first["tokens_per_s"] * 1e6)
    assert {"ttft", "first_answer", "itl_thinking", "tpot_answer"} <= first["latencies"].keys()


def test_a_window_that_the_generator_spoilt_is_shown_and_counts_for_nothing(
    plan: Path, tmp_path: Path
) -> None:
    result = made_result(plan, (1.0, 2.0, 3.0))
    result.windows[2].bottleneck = Bottleneck.GENERATOR
    result.windows[2].good = 0
    result.capacity = Capacity(
        Verdict.AT_LEAST, 2.0, 1.8, None, "the generator was the bottleneck at 3 requests/s"
    )
    out = tmp_path / "report.html"
    assert main(["bench", "report", str(written(tmp_path / "r", result)), "--out", str(out)]) == 0
    tree = json.loads(out.with_suffix(".json").read_text())
    assert "at least 2" in tree["answer"]
    assert tree["gives_way"]["word"] == "generator"
    assert any("count for nothing" in note for note in tree["notes"])
    assert tree["plan"] is None


def test_windows_of_one_load_are_added_up(plan: Path) -> None:
    result = made_result(plan, (2.0, 2.01, 3.0))
    found = points(result.windows)
    assert [point.due for point in found] == [
        result.windows[0].due + result.windows[1].due,
        result.windows[2].due,
    ]
    assert found[0].seconds == 240.0


def _point(plan: Path) -> Point:
    return points(made_result(plan, (2.0,)).windows)[0]


def test_what_breaks_first_names_its_cause(plan: Path) -> None:
    point = _point(plan)
    window = point.windows[0]
    window.good = window.due // 2
    point.errors["http_429"] = window.due // 2
    found = limit_of([point], SLO)
    assert found is not None
    assert found.word == "admission"
    point.errors.clear()
    point.errors["cut"] = window.due // 2
    found = limit_of([point], SLO)
    assert found is not None
    assert found.word == "errors"
    assert "cut" in found.evidence


def test_nodes_are_whole_gangs_from_both_ends_of_the_interval() -> None:
    capacity = Capacity(Verdict.FOUND, 10.0, 9.0, 11.0, "")
    need = nodes_needed(capacity, nodes=3, target_per_s=95.0, unit_nodes=3)
    assert need is not None
    assert (need.low, need.nodes, need.high) == (27, 30, 33)
    open_end = Capacity(Verdict.AT_LEAST, 10.0, 9.0, None, "")
    need = nodes_needed(open_end, nodes=3, target_per_s=95.0, unit_nodes=3)
    assert need is not None
    assert need.low == 3
    nothing = Capacity(Verdict.NOTHING_HOLDS, 0.0, 0.0, 1.0, "")
    assert nodes_needed(nothing, nodes=3, target_per_s=95.0) is None


def test_each_mistake_is_one_message_with_its_cure(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "r.html"))
    path = tmp_path / "result.json"
    path.write_text('{"version": 1, "windows": [')
    assert "is no result" in refused(capsys, str(path), *out)
    path.write_text('{"version": 99}')
    assert "version 99, not 1" in refused(capsys, str(path), *out)
    assert "cannot read" in refused(capsys, str(tmp_path / "none.json"), *out)
    result = made_result(plan, (1.0, 2.0))
    written(path, result)
    assert "--nodes N" in refused(capsys, str(path), "--target", "5", *out)
    other = msgspec.structs.replace(result, model="DeepSeek-R1-Distill-Qwen-7B")
    written(path, other)
    said = refused(capsys, str(path), "--plan", str(plan), *out)
    assert "is a plan of DeepSeek-R1-0528" in said
    written(path, msgspec.structs.replace(result, windows=[]))
    assert "no window" in refused(capsys, str(path), *out)
    written(path, result)
    text = plan.read_text().replace("plan:", "plans:", 1)
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    refused(capsys, str(path), "--plan", str(broken), *out)
    assert "--plan VALUES too" in refused(capsys, str(path), "--factors", str(broken), *out)


def test_a_run_whose_generator_was_always_late_tells_nothing_of_the_server(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = made_result(plan, (1.0, 2.0))
    for window in result.windows:
        window.bottleneck = Bottleneck.GENERATOR
    path = written(tmp_path / "r.json", result)
    assert main(["bench", "report", str(path), "--out", str(tmp_path / "r.html")]) == 0
    assert "tells nothing of the server" in capsys.readouterr().out
