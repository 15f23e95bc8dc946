"""`r1-serve simulate` and `replay`: from a plan and a trace to a report, and back."""

import csv
import gzip
import json
from pathlib import Path

import pytest
import yaml

from orchestrator.cli import main

PLAN = """
plan:
  asked:
    gpu: H200
    weights: fp8
    fabric: rdma
    usd_per_gpu_hour: 2.5
    slo: {ttft_s: 2.0, itl_s: 0.05}
    workload: {name: chat, requests_per_s: 2.0}
spec:
  models:
  - path: /models/DeepSeek-R1-0528
    pools:
    - role: prefill
      gang: {data_parallel: 8, expert_parallel: true}
      args: [--max-num-seqs, '36', --max-num-batched-tokens, '16384']
    - role: decode
      gang: {data_parallel: 8, expert_parallel: true}
      args:
      - --max-num-seqs
      - '64'
      - --speculative-config
      - '{"method": "mtp", "num_speculative_tokens": 1}'
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def trace(tmp_path: Path, rows: int = 40) -> Path:
    path = tmp_path / "trace.csv"
    lines = ["at_s,input_tokens,output_tokens,thinking_tokens,class"]
    lines += [
        f"{at / 4},{500 + at},{20 + at},10,{'chat' if at % 2 else 'batch'}" for at in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_plays_a_trace_and_scores_each_class_by_its_own_slo(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(
        capsys, "simulate", "--plan", plan, "--trace", trace(tmp_path), "--format", "json",
        "--class-slo", "batch:ttft=1ms",
    )  # fmt: skip
    tree = json.loads(out)
    assert code == 0
    assert tree["outcomes"] == {"finished": 40}
    assert tree["classes"]["batch"] == {"ended": 20, "within_slo": 0}
    assert tree["classes"]["chat"]["within_slo"] > 0
    assert tree["usd"] == pytest.approx(2.5 * tree["gpu_hours"])
    assert {row["reason"] for row in tree["decisions"]} >= {"slot_free", "long_prompt"}


def test_the_log_replays_and_a_line_that_was_changed_does_not(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    run(capsys, "simulate", "--plan", plan, "--trace", trace(tmp_path), "--log", log)
    code, out, _ = run(capsys, "replay", log)
    assert code == 0
    assert "40 admission, 40 path, 80 routing; 0 differ" in out

    lines = log.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if '"event":"routing"' in line)
    other = json.loads(lines[at])
    other["decision"] = "decode0.1/7" if other["decision"] != "decode0.1/7" else "decode0.1/6"
    lines[at] = json.dumps(other)
    log.write_text("\n".join(lines) + "\n")
    code, out, err = run(capsys, "replay", log)
    assert code == 1
    assert "1 differ" in out
    assert f"line {at + 1}: routing was" in err


def test_the_report_stands_alone_and_has_every_decision_beside_it(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out.html"
    run(
        capsys, "simulate", "--plan", plan, "--duration", 10, "--faults", "gang_death,spike",
        "--report", page,
    )  # fmt: skip
    text = page.read_text()
    assert "Decisions by reason" in text
    assert "gang_death" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    with gzip.open(tmp_path / "out.decisions.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert {row["event"] for row in rows} == {"admission", "path", "routing"}
    assert all(row["reason"] for row in rows)


def test_equal_arguments_give_equal_logs(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = []
    for name in ("a", "b"):
        log = tmp_path / name
        run(capsys, "simulate", "--plan", plan, "--duration", 5, "--faults", "all", "--log", log)
        logs.append(log.read_bytes())
    assert logs[0] == logs[1]


def test_two_plans_are_compared_on_the_same_arrivals(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "wide.yaml"
    other.write_text(PLAN.replace("'64'", "'4'"))
    code, out, _ = run(
        capsys, "simulate", "--compare", plan, other, "--trace", trace(tmp_path), "--format", "json"
    )
    one, two = json.loads(out)
    assert code == 0
    assert one["prompt_tokens"] == two["prompt_tokens"]
    assert one["name"] == "plan"
    assert two["name"] == "wide"


def test_a_closed_loop_keeps_so_many_in_flight(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(
        capsys, "simulate", "--plan", plan, "--workload", "input=1000,output=50",
        "--concurrency", 8, "--requests", 60, "--format", "json",
    )  # fmt: skip
    tree = json.loads(out)
    assert tree["outcomes"] == {"finished": 60}
    spans = tree["timeline"]
    assert max(n / b for n, b in zip(spans["in_flight"], spans["beats"], strict=True) if b) <= 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trace", "none.csv"], "cannot read none.csv"),
        (["--faults", "gremlins"], "there is no fault gremlins"),
        (["--workload", "chatt"], "did you mean chat"),
        (["--slo", "ttft=soon"], "no time in s or ms"),
        (["--class-slo", "ttft=1s"], "no class"),
    ],
)
def test_bad_words_are_one_message_with_a_cure(
    plan: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "simulate", "--plan", plan, *words)
    assert code == 2
    assert said in err
    assert "do: " in err


@pytest.mark.parametrize(
    "line", ["what", '{"timestamp": 1}', '{"timestamp": -1, "input_length": 1}']
)
def test_a_broken_line_of_a_trace_is_named(
    plan: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 9, "output_length": 2}\n' + line + "\n")
    code, _, err = run(capsys, "simulate", "--plan", plan, "--trace", path)
    assert code == 2
    assert "broken.jsonl, line 2" in err


def test_a_plan_that_names_no_gpu_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("gpu: H200", "gpu: H201"))
    code, _, err = run(capsys, "simulate", "--plan", path)
    assert code == 2
    assert "no GPU that is known" in err


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", '{"event": "other"}\n', '{"event": "routing"}\n']
)
def test_what_is_no_decision_log_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    code, _, err = run(capsys, "replay", path)
    assert code == 2
    assert "do: give a decision log" in err


def test_a_plan_that_scales_is_played_with_its_gangs_coming_and_going(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = yaml.safe_load(PLAN)
    [model] = tree["spec"]["models"]
    model["engine"] = {"storage_bytes_per_s": 1e12}
    for pool in model["pools"]:
        pool["costs"] = {"prefill_base_s": 0.03, "prefill_token_s": 1e-4, "step_request_s": 1e-3}
        pool["node_weights_bytes"] = 8e11
    bounds = [{"role": "prefill", "gangs_max": 1}, {"role": "decode", "gangs_max": 3}]
    floor = {"role": "decode", "gangs_min": 2, "from_h": 0, "until_h": 1}
    model["scaling"] = {"ttft_s": 2, "tpot_s": 0.05, "pools": bounds, "calendar": [floor]}
    path = tmp_path / "scaled.yaml"
    path.write_text(yaml.safe_dump(tree))
    code, out, _ = run(
        capsys, "simulate", "--plan", path, "--trace", trace(tmp_path), "--format", "json"
    )
    assert code == 0
    found = json.loads(out)
    assert {"event": "scaling", "reason": "calendar", "count": 1} in found["decisions"]
    assert 16 < found["gpus_held_mean"] <= 24
    del model["pools"][1]["costs"]
    path.write_text(yaml.safe_dump(tree))
    code, _, err = run(capsys, "simulate", "--plan", path, "--requests", 1)
    assert code == 2
    assert "models.0.pools.decode.costs: is missing" in err
