"""The loop is closed: a report's rows move the factors, and the next report is nearer."""

import json
from pathlib import Path

import msgspec
import pytest

from orchestrator.cli import main
from tests.made_result import made_result, slower


def _plan(path: Path, gpus: str) -> Path:
    words = ("plan", "--gpus", gpus, "--workload", "input=2000,output=1000,rate=4")
    slo = ("--slo", "ttft=2s,itl=50ms", "--format", "values", "-o", str(path))
    assert main([*words, *slo]) == 0
    return path


def _error(report: Path) -> float:
    compared = json.loads(report.read_text())["plan"]["compared"]
    assert len(compared) >= 3
    return float(sum(abs(row["tpot_error"]) for row in compared) / len(compared))


@pytest.mark.parametrize("pace", [0.8, 1.25])
def test_the_next_report_shows_the_smaller_error(tmp_path: Path, pace: float) -> None:
    plan = _plan(tmp_path / "plan.yaml", "8xH200")
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_bytes(msgspec.json.encode(made_result(plan, (1, 1.5, 2, 3, 4, 5), slower(pace))))
    # The next run is another one: other loads, other chance, the same server.
    second.write_bytes(
        msgspec.json.encode(made_result(plan, (1.2, 1.7, 2.5, 3.5, 4.5), slower(pace), seed=5))
    )
    factors = tmp_path / "factors.yaml"
    words = ("--plan", str(plan), "--out", str(tmp_path / "r1.html"))
    assert main(["bench", "report", str(first), *words]) == 0
    report = tmp_path / "r1.json"
    assert main(["fit", "--from", str(report), "--out", str(factors)]) == 0
    errors = []
    for name, more in (("before", ()), ("after", ("--factors", str(factors)))):
        out = tmp_path / f"{name}.html"
        words = ("--plan", str(plan), *more, "--out", str(out))
        assert main(["bench", "report", str(second), *words]) == 0
        errors.append(_error(out.with_suffix(".json")))
    before, after = errors
    assert before > 0.1
    assert after < before / 2


def test_the_planner_takes_the_factors_that_were_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _plan(tmp_path / "plan.yaml", "8xH200")
    result = tmp_path / "result.json"
    result.write_bytes(msgspec.json.encode(made_result(plan, (1, 2, 3, 4), slower(1.3))))
    words = ("--plan", str(plan), "--out", str(tmp_path / "r.html"))
    assert main(["bench", "report", str(result), *words]) == 0
    factors = tmp_path / "factors.yaml"
    assert main(["fit", "--from", str(tmp_path / "r.json"), "--out", str(factors)]) == 0
    capsys.readouterr()
    asked = ("plan", "--gpus", "8xH200", "--workload", "chat,rate=2", "--format", "json")
    itl = []
    for more in ((), ("--factors", str(factors))):
        assert main([*asked, *more]) == 0
        itl.append(json.loads(capsys.readouterr().out)["plan"]["predicted"]["itl_s"])
    assert itl[1] > itl[0] * 1.05


def test_rows_of_a_disaggregated_fleet_are_of_its_decode_gangs(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    words = ("plan", "--gpus", "32xH200", "--workload", "chat,rate=15", "--slo", "ttft=2s,itl=50ms")
    assert main([*words, "--format", "values", "-o", str(path)]) == 0
    result = tmp_path / "result.json"
    result.write_bytes(msgspec.json.encode(made_result(path, (2, 4, 8))))
    out = tmp_path / "r.html"
    assert main(["bench", "report", str(result), "--plan", str(path), "--out", str(out)]) == 0
    rows = json.loads(out.with_suffix(".json").read_text())["fit_rows"]
    assert [row["phase"] for row in rows] == ["decode"] * 3
    assert rows[0]["dp"] == rows[0]["ep"] == 16
    assert rows[0]["batch_per_rank"] < rows[2]["batch_per_rank"]
    factors = tmp_path / "factors.yaml"
    assert main(["fit", "--from", str(out.with_suffix(".json")), "--out", str(factors)]) == 0


def test_a_report_without_a_plan_has_nothing_to_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _plan(tmp_path / "plan.yaml", "8xH200")
    result = tmp_path / "result.json"
    result.write_bytes(msgspec.json.encode(made_result(plan, (1, 2))))
    out = tmp_path / "r.html"
    assert main(["bench", "report", str(result), "--out", str(out)]) == 0
    capsys.readouterr()
    words = ("--from", str(out.with_suffix(".json")), "--out", str(tmp_path / "f.yaml"))
    assert main(["fit", *words]) == 2
    assert "without rows to fit" in capsys.readouterr().err
