"""`r1-serve plan`: its formats agree, `up` reads its values, and mistakes are one message."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typing_extensions import override

from orchestrator.cli import main
from orchestrator.cli.plan_inputs import read_workload
from orchestrator.core import Role
from orchestrator.runtime.simulated import check_layout
from orchestrator.spec import EngineKind, parse_plan, parse_spec, simulated, spec_tree

ASK = ("plan", "--gpus", "8xH200", "--slo", "ttft=2s,itl=50ms", "--price", "2.5")
INVENTORY = """
fabric: rdma
nodes:
  - {name: a1, gpu: H200, gpus: 8, leaf: a, failure_domain: row-1}
  - {name: b1, gpu: H200, gpus: 8, leaf: b, failure_domain: row-2}
  - {name: a2, gpu: H200, gpus: 8, leaf: a, failure_domain: row-1}
  - {name: b2, gpu: H200, gpus: 8, leaf: b, failure_domain: row-2}
"""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("r1-serve: ")
    assert printed.err.count("\n") == 2
    return printed.err


def test_the_table_fits_a_terminal_and_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    table = said(capsys, *ASK)
    assert max(len(line) for line in table.splitlines()) <= 100
    for part in ("PLAN", "LAYOUT", "PREDICTED", "BYTES", "WHY", "RUNNERS-UP", "NOT THE PLAN"):
        assert f"\n{part}" in f"\n{table}"
    predicted = [
        line for line in table.splitlines() if line.startswith(("  TTFT", "  ITL", "  a mil"))
    ]
    assert predicted
    assert all("±" in line or "extrapolated" in line for line in predicted)


def test_explain_gives_every_layout_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    tree = json.loads(said(capsys, *ASK, "--explain", "--format", "json"))
    crews = tree["plan"]["crews"]
    grouped = sum(group["count"] for group in tree["refused_by_reason"].values())
    assert len(tree["refused"]) == grouped
    assert all(each["reason"] and each["why"] for each in tree["refused"])
    assert {each["reason"] for each in tree["refused"]} >= {"memory", "fp8-kv", "outdone"}
    assert crews[0]["gangs"] >= 1


def test_json_and_values_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    tree = json.loads(said(capsys, *ASK, "--format", "json"))
    values = yaml.safe_load(said(capsys, *ASK, "--format", "values"))
    predicted = dict(values["plan"]["predicted"])
    predicted.pop("error_bands")
    assert predicted == pytest.approx(tree["plan"]["predicted"])
    for crew in tree["plan"]["crews"]:
        group = values["workerGroups"][crew["role"]]
        assert (group["replicas"], group["numOfHosts"]) == (crew["gangs"], crew["nodes"])
        assert group["labels"] == {f"r1-serve/{crew['role']}": "true"}


def test_up_reads_the_values_of_plan_and_its_layout_fits_simulated_nodes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, "plan", "--gpus", "16xH200", "--slo", "itl=30ms", "--format", "values")
    spec = parse_plan(text, "values")
    assert parse_spec(yaml.safe_dump(dict(spec_tree(spec)))) == spec
    fakes = simulated(spec, EngineKind.FAKE, "/models/none")
    check_layout(fakes)
    [real], [fake] = spec.models, fakes.models
    assert [(p.role, p.replicas, p.gang, p.node_group) for p in real.pools] == [
        (p.role, p.replicas, p.gang, p.node_group) for p in fake.pools
    ]
    assert fake.engine.fake_step_s == real.engine.fake_step_s
    assert not any(pool.args for pool in fake.pools)
    check_layout(simulated(spec, EngineKind.VLLM, "/models/none"))


def test_a_plan_for_gpus_is_not_started_on_simulated_nodes_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    assert main([*ASK, "--format", "values", "-o", str(path)]) == 0
    assert main(["up", "--folder", str(tmp_path), "--began-at", "0", "--plan", str(path)]) == 1
    assert "--engine fake" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no mapping"),
        ("plan: {}", "no mapping `spec`"),
        ("spec: {models: []}\ncolour: red", "unknown key colour"),
        ("spec: {models: []}", "there is none"),
    ],
)
def test_what_is_no_plan_is_refused_by_up(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    arguments = ["--folder", str(tmp_path), "--began-at", "0", "--engine", "fake"]
    assert main(["up", *arguments, "--plan", str(path)]) == 1
    assert said in capsys.readouterr().err


class _Page(HTMLParser):
    """Collects what would be loaded, and whether every element is closed."""

    VOID = frozenset({"meta", "line", "rect", "circle", "polyline", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID or tag == "polyline" or tag == "rect":
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_without_script_or_anything_from_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, *ASK, "--format", "html")
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.loads == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 5
    assert "nan" not in text.lower().replace("nano", "")


def test_an_inventory_names_the_nodes_and_gangs_stay_on_a_leaf(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(INVENTORY)
    arguments = (
        "plan",
        "--inventory",
        str(path),
        "--workload",
        "chat,rate=14",
        "--slo",
        "itl=40ms",
    )
    values = yaml.safe_load(said(capsys, *arguments, "--format", "values"))
    groups = values["workerGroups"].values()
    gangs = [set(hosts) for group in groups for hosts in group["hosts"].values()]
    assert sum(map(len, gangs)) == len(set().union(*gangs)) <= 4
    for gang in gangs:
        assert len(gang) != 2 or gang in ({"a1", "a2"}, {"b1", "b2"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("gpu: H200, gpus: 8, leaf: b", "gpus: 8, leaf: b"), "nodes.1.gpu: is missing"),
        (("name: b1, ", ""), "nodes.1.name: is missing"),
        (("gpus: 8, leaf: b", "leaf: b"), "nodes.1.gpus: is missing"),
        (("gpus: 8", "gpus: many"), "nodes.0.gpus"),
        (("gpus: 8", "gpus: 0"), "nodes.0.gpus: 0 is not positive"),
        (("name: b1", "name: a1"), "a1 is named twice"),
        (("gpu: H200", "gpu: H2000"), "unknown GPU H2000, did you mean H200?"),
        (("fabric: rdma", "fabric: rdme"), "unknown 'rdme'"),
        (("leaf: a", "leef: a"), "nodes.0.leef: unknown key"),
    ],
)
def test_a_bad_inventory_is_one_message(
    change: tuple[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(INVENTORY.replace(*change))
    assert words in refused(capsys, "--inventory", str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpus", "32xH2000"], "unknown GPU H2000, did you mean H200?"),
        (["--gpus", "lots"], "unknown GPU LOTS"),
        (["--gpus", "0xH200"], "no GPU at all"),
        (["--gpus", "H200"], "no GPUs are given"),
        ([], "no GPUs are given"),
        (["--gpus", "8xH200", "--model", "DeepSeek-R2"], "did you mean DeepSeek-R1?"),
        (["--gpus", "8xH200", "--workload", "chatt"], "did you mean chat?"),
        (["--gpus", "8xH200", "--workload", "input=5"], "no output"),
        (["--gpus", "8xH200", "--workload", "chat,rate=fast"], "rate is 'fast'"),
        (["--gpus", "8xH200", "--slo", "tftt=2s"], "bounds no TTFT and no ITL"),
        (["--gpus", "8xH200", "--slo", "itl=50"], "no time in s or ms"),
        (["--gpus", "8xH200", "--slo", "itl=5ms,tpot=6ms"], "bounded twice"),
        (["--gpus", "8xH200", "--price", "-1"], "is negative"),
        (["--gpus", "8xH200", "--allow", "fp9"], "unknown reason fp9"),
        (["--inventory", "/none"], "cannot read the inventory"),
        (["--gpus", "8xH200", "--slo", "itl=50ms", "-o", "/none/x"], "cannot write"),
        (["--gpus", "8xH100"], "81.8"),  # GB of experts on each of 8 GPUs
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slo", "itl=0.1ms"], "with these GPUs the best ITL is "),
        (["--slo", "ttft=1ms"], "with these GPUs the best TTFT is "),
        (["--slo", "itl=50ms", "--workload", "chat,rate=10000"], "carry at most "),
    ],
)
def test_what_nothing_can_meet_is_answered_with_what_can_be_met(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "--gpus", "8xH200", *arguments)
    assert words in message
    nearest = float(message.partition(words)[2].split()[0])
    near = {
        "itl": ["--slo", f"itl={nearest * 1.02}ms"],
        "ttft": ["--slo", f"ttft={nearest * 1.03 + 0.005}s"],
        "carry": ["--slo", "itl=50ms", "--workload", f"chat,rate={nearest * 0.99}"],
    }["carry" if "carry" in words else words.split()[-2].lower()]
    assert main(["plan", "--gpus", "8xH200", *near, "--format", "json"]) == 0


def test_workloads_come_from_traces_plain_and_gzip_archives_and_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(
        json.dumps({"timestamp": at * 100, "input_length": 2000, "output_length": 300}) + "\n"
        for at in range(50)
    )
    (tmp_path / "t.jsonl").write_text(lines)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "w.yaml").write_text("{input: 2000, output: 300, rate: 10}")
    (tmp_path / "p.yaml").write_text("{profile: chat, rate: 2}")
    chunk = tmp_path / "chunk-0-trace.csv"
    chunk.write_text("0,10,1,Gamma,1,1\n")
    data = tmp_path / "chunk-0-dataset.json"
    data.write_text(json.dumps({"0": {"input_tokens": "{2000: 1}", "output_tokens": "{300: 1}"}}))
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        for path in (chunk, data):
            archive.add(path, path.name)
    for name in ("t.jsonl", "t.jsonl.gz", "w.yaml", "s.tar.gz"):
        workload = read_workload(str(tmp_path / name))
        assert workload.input_tokens.mean == 2000
        assert workload.arrivals is not None
        assert workload.arrivals.requests_per_s == pytest.approx(10, rel=0.03)
    workload = read_workload(f"{tmp_path / 'p.yaml'},prefix_hit=0.25")
    assert workload.arrivals is not None
    assert (workload.arrivals.requests_per_s, workload.prefix_hit) == (2, 0.25)
    (tmp_path / "x.tar").write_bytes((tmp_path / "s.tar.gz").read_bytes()[:50])
    assert "cannot read" in refused(capsys, *ASK[1:3], "--workload", str(tmp_path / "x.tar"))


def test_pipeline_stages_are_planned_and_justified_without_rdma(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("plan", "--gpus", "16xH100", "--fabric", "tcp")
    tree = json.loads(said(capsys, *arguments, "--format", "json"))
    [crew] = tree["plan"]["crews"]
    assert (crew["tensor_parallel"], crew["pipeline_parallel"]) == (8, 2)
    assert any("PP2 because the fabric (tcp)" in reason for reason in tree["reasons"])
    assert tree["plan"]["bands"]["rate"]["said"] == "extrapolated"
    assert tree["refused_by_reason"]["no-rdma"]["count"] > 0
    spec = parse_plan(said(capsys, *arguments, "--format", "values"), "values")
    pool = spec.models[0].pool(Role.UNIFIED)
    assert pool is not None
    assert (pool.gang.tensor_parallel, pool.gang.pipeline_parallel, pool.gang.nodes) == (8, 2, 2)


def test_tensor_parallelism_across_nodes_must_be_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("plan", "--gpus", "16xH100", "--fabric", "tcp", "--format", "json", "--explain")
    tree = json.loads(said(capsys, *arguments))
    assert (
        "16 copies of the KV cache" in tree["refused_by_reason"]["tensor-across-nodes"]["example"]
    )
    tree = json.loads(said(capsys, *arguments, "--allow", "tensor-across-nodes"))
    assert "tensor-across-nodes" not in tree["refused_by_reason"]


def test_the_plan_does_not_depend_on_the_hash_seed() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *ASK, "--format", "json"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "4711")
    }
    assert len(outputs) == 1
