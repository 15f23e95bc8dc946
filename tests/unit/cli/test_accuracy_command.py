"""`r1-serve accuracy` and `r1-serve fit`: what they print, write and refuse."""

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.perf import read_factors, shipped_factors

ROOT = Path(__file__).parents[3]
FIGURES = ROOT / "orchestrator/perf/data/published_figures.yaml"


def test_the_accuracy_page_and_the_bands_are_current(tmp_path: Path) -> None:
    page, groups = tmp_path / "accuracy.md", tmp_path / "groups.yaml"
    assert main(["accuracy", "--write", str(page), "--groups", str(groups)]) == 0
    assert page.read_text() == (ROOT / "docs/accuracy.md").read_text(), "run `make docs`"
    assert groups.read_text() == (ROOT / "orchestrator/perf/data/groups.yaml").read_text()


def test_the_table_lists_every_row_targets_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", str(FIGURES)]) == 0
    said = capsys.readouterr().out
    tree = yaml.load(FIGURES.read_text(), yaml.CSafeLoader)
    for row in tree["measurements"] + tree["inferencex"]:
        assert row["id"] in said
    for word in ("Spearman", "bound", "671,026,419,200", "not predicted: ", "extrapolated: "):
        assert word in said
    assert "DIFFERS" not in said


def test_json_has_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accuracy", "--format", "json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    row = next(r for r in tree["rows"] if r["id"] == "sgl-h100-prefill-4096")
    assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    assert {"rows", "unpredicted", "groups", "targets", "facts"} == tree.keys()
    assert all(row["reason"] for row in tree["unpredicted"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inferencex: [{id: x1, hw: H200}]", "row x1: no 'engine'"),
        ("nothing: 1", "neither a `measurements`"),
        ("\x00", "not YAML"),
    ],
)
def test_a_file_in_another_format_is_one_message_and_exit_code_2(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(text)
    for command in (["accuracy", str(path)], ["fit", "--figures", str(path), "--out", "f.yaml"]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 2


def test_files_that_cannot_be_read_or_written_exit_with_2(tmp_path: Path) -> None:
    assert main(["accuracy", str(tmp_path / "none.yaml")]) == 2
    assert main(["accuracy", "--write", str(tmp_path)]) == 2
    assert main(["accuracy", "--factors", str(FIGURES)]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["accuracy", "--model", "guess"])
    assert ended.value.code == 2


def test_an_empty_selection_of_rows_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text("measurements: []\n")
    assert main(["accuracy", str(path)]) == 0
    assert "0 rows predicted" in capsys.readouterr().out


def test_fit_writes_factors_with_their_provenance_that_accuracy_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = tmp_path / "steps.csv", tmp_path / "factors.yaml"
    own.write_text(
        "phase,hardware,engine,tp,batch_per_rank,context_tokens,step_ms\n"
        "decode,H200,vllm,8,1,2000,15\ndecode,H200,vllm,8,16,2000,35\n"
    )
    assert main(["fit", "--from", str(own), "--out", str(out)]) == 0
    assert "from 2 rows" in capsys.readouterr().out
    tree = yaml.safe_load(out.read_text())["provenance"]
    assert tree["source"] == "steps.csv"
    assert tree["started_from"] == "the shipped factors"
    assert tree["mean_error_after"]["tpot"] < tree["mean_error_before"]["tpot"]
    assert read_factors(out.read_text()) != shipped_factors()
    assert main(["accuracy", "--factors", str(out)]) == 0


ROWS = """
inferencex:
- {id: a-b200, hw: B200, engine: sglang, prec: fp4, mode: agg, isl: 1024, osl: 64, conc: 4, gpus: 4,
   dp: 1, ep: 4, tp: 4, ttft_ms: 200, tpot_ms: 9, clean: true, split: validate}
- {id: a-pair, hw: GB200, engine: trtllm, prec: fp4, mode: disagg, isl: 1024, osl: 64, conc: 4,
   gpus: 12, P: [1, 4, 1, 1], D: [1, 8, 1, 8], ttft_ms: 300, tpot_ms: 7, clean: true,
   split: validate}
- {id: fitted, hw: B200, engine: sglang, prec: fp4, mode: agg, isl: 1024, osl: 64, conc: 4, gpus: 4,
   dp: 1, ep: 4, tp: 4, ttft_ms: 200, tpot_ms: 9, clean: true, split: calibrate}
"""


def test_the_simulator_plays_validate_rows_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, page = tmp_path / "figures.yaml", tmp_path / "page.md"
    figures.write_text(ROWS)
    command = ["accuracy", str(figures), "--model", "simulator"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "fitted" not in said, "only rows that no factor was fitted to"
    assert "TTFT where it can be known, median of 1 rows" in said
    assert "how its pools queue is not stated" in said
    assert main([*command, "--format", "json"]) == 0
    rows = {(r["id"], r["metric"]): r for r in json.loads(capsys.readouterr().out)["rows"]}
    assert {metric for _, metric in rows} == {"tpot", "ttft", "rate"}
    alone = rows["a-b200", "tpot"]
    assert alone["simulated"] == pytest.approx(alone["closed_form"], rel=0.15)
    assert main([*command, "--write", str(page)]) == 0
    assert page.read_text().count("| a-b200 |") == 3
    assert main([*command, "--write", str(tmp_path)]) == 2
    assert main([*command, "--rows", "calibrate", "--write", str(page)]) == 2
    capsys.readouterr()
    assert main([*command, "--rows", "calibrate"]) == 0
    said = capsys.readouterr().out
    assert "fitted" in said
    assert "a-b200" not in said
