"""Reading published rows: what they leave out, what is odd in them, and what is not a row."""

import pytest
import yaml

from orchestrator.cli.figures_text import published_text
from orchestrator.core import SpecError
from orchestrator.perf import EngineFamily, Kv, Layout, Mode, Weight
from orchestrator.perf.cases import Case, Unpredictable
from orchestrator.perf.figures import read_figures
from orchestrator.perf.row_words import drafts_of, engine_of, precision_of

UNIFIED: dict[str, object] = {
    "id": "a", "hw": "H200", "engine": "sglang", "version": "0.5.9", "prec": "fp8", "mode": "agg",
    "isl": 1024, "osl": 1024, "conc": 4, "gpus": 8, "tp": 9, "dp": 1, "ep": 1,
    "ttft_ms": 259.9, "tpot_ms": 10.292, "clean": True, "split": "calibrate",
}  # fmt: skip
APART: dict[str, object] = {
    "id": "b", "hw": "GB200", "engine": "trtllm", "version": None, "prec": "fp4",
    "mode": "disagg", "isl": 8192, "osl": 1024, "conc": 64, "gpus": 20,
    "P": [1, 4, 1, 1], "D": [4, 1, 4, 4], "ttft_ms": 1000.0, "tpot_ms": 9.0, "split": "validate",
}  # fmt: skip
ROW: dict[str, object] = {
    "id": "c", "role": "agg", "use": "validate", "source": "s", "engine": "vLLM 0.11",
    "hardware": {"gpu": "H200", "gpus": 8}, "precision": "FP8 (checkpoint)",
    "parallelism": {"tp": 8}, "workload": {"isl": 1000, "osl": 500, "concurrency": 16},
    "metrics": {"ttft_ms": 200, "tpot_ms": 15, "output_tok_s_total": 800},
}  # fmt: skip


def read(section: str, **changes: object) -> Case | Unpredictable:
    base: dict[str, object] = ROW if section == "measurements" else UNIFIED
    return read_figures(yaml.safe_dump({section: [{**base, **changes}]}))[0]


def case(section: str, **changes: object) -> Case:
    found = read(section, **changes)
    assert isinstance(found, Case), found
    return found


def test_every_public_row_is_a_case_or_has_a_reason() -> None:
    rows = read_figures(published_text())
    tree = yaml.safe_load(published_text())
    assert [r.id for r in rows] == [r["id"] for r in tree["measurements"] + tree["inferencex"]]
    assert all(row.reason for row in rows if isinstance(row, Unpredictable))
    assert sum(isinstance(row, Unpredictable) for row in rows) < 40


def test_tensor_parallelism_of_unified_rows_follows_from_their_gpus() -> None:
    found = case("inferencex")
    assert (found.side.layout.tp, found.side.layout.dp) == (8, 1)
    assert found.notes == ("tp 9 read as 8",)
    assert found.input_tokens == pytest.approx(0.9 * 1024)
    assert found.measured["rate"] == pytest.approx(4 / (0.2599 + 920.6 * 0.010292))
    assert case("inferencex", dp=8, ep=8).side.layout.tp == 1


def test_pools_are_gangs_tp_dp_ep_and_must_add_up_to_the_gpus() -> None:
    found = read_figures(yaml.safe_dump({"inferencex": [APART]}))[0]
    assert isinstance(found, Case)
    assert found.mode is Mode.DISAGGREGATED
    assert found.prefill is not None
    assert (found.prefill.gangs, found.prefill.layout.tp) == (1, 4)
    assert (found.side.gangs, found.side.layout.dp, found.side.layout.ep) == (4, 4, 4)
    wrong = read_figures(yaml.safe_dump({"inferencex": [{**APART, "gpus": 24}]}))[0]
    assert wrong == Unpredictable("b", "validate", "P and D are 20 GPUs, the row says 24")


def test_pools_of_measurements_are_words_or_sizes() -> None:
    for pool in ("3 x (DP4 EP4), 12 GPUs", {"instances": 3, "dp": 4, "ep": 4}):
        parallel = {"prefill": pool, "decode": "DEP8"}
        found = case("measurements", role="disagg", parallelism=parallel)
        assert found.prefill is not None
        assert (found.prefill.gangs, found.prefill.layout) == (3, Layout(dp=4, ep=4))
        assert found.side.layout == Layout(dp=8, ep=8)
    parallel = {"prefill": "TP4", "decode": "DEP8-DEP32"}
    found_not = read("measurements", role="disagg", parallelism=parallel)
    assert isinstance(found_not, Unpredictable)
    assert "several sizes" in found_not.reason


def test_measurements_in_any_unit_become_the_models() -> None:
    found = case("measurements")
    assert found.measured["output_tokens"] == 100  # of eight GPUs
    assert found.measured["tpot"] == 0.015
    assert case("measurements", metrics={"user_tok_s": 50}).measured == {"tpot": 0.02}
    assert case(
        "measurements", role="decode", workload={"isl": 9, "batch_per_gpu": 2},
        parallelism={"ep": 8}, metrics={"output_tok_s_node": 80},
    ).measured == {"output_tokens": 10}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hardware": {"gpu": "Ascend 910C"}}, "unknown GPU 'Ascend 910C'"),
        ({"role": "comm"}, "role 'comm'"),
        ({"parallelism": {"ep": True}}, "its ep is True, not a number"),
        ({"parallelism": {"tp": 4}}, "is not its 8 GPUs"),
        ({"workload": {"isl": 1000, "concurrency": 1}}, "osl is not stated"),
        ({"workload": {"isl": 1000, "osl": 10}}, "load is not stated"),
        ({"metrics": {"tpot_ms": [1, 2]}}, "its tpot_ms is [1, 2], not a number"),
        ({"workload": {"isl": "mixed", "osl": 10}}, "its isl is 'mixed', not a number"),
        ({"metrics": {"bogomips": 3}}, "none of its metrics is predicted: bogomips"),
    ],
)
def test_a_row_without_a_prediction_says_why(changes: dict[str, object], reason: str) -> None:
    found = read("measurements", **changes)
    assert isinstance(found, Unpredictable)
    assert reason in found.reason
    assert (found.id, found.use) == ("c", "validate")


def test_what_was_never_fitted_is_extrapolated() -> None:
    assert "unknown" in case("measurements", engine="MoAI").extrapolated
    assert "H20" in case("measurements", hardware={"gpu": "H20-96G", "gpus": 8}).extrapolated
    assert "MI355X" in case("inferencex", hw="MI355X").extrapolated
    assert "32,768" in case("inferencex", isl=100_000).extrapolated
    assert "INT8" in case("measurements", precision="INT8").extrapolated
    assert case("measurements").extrapolated == ""
    assert case("inferencex").extrapolated == ""


def test_sglangs_and_tensorrts_ways_of_counting_dp_ranks_are_understood() -> None:
    parallel = {"tp": 8, "dp": 8, "ep": 8}
    assert case("measurements", parallelism=parallel).side.layout == Layout(dp=8, ep=8)
    parallel = {"ep": 8, "attention_dp": True}
    assert case("measurements", parallelism=parallel).side.layout == Layout(dp=8, ep=8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML at line"),
        ("- 1", "neither a `measurements` nor an `inferencex` section"),
        ("measurements: 3", "measurements is not a list"),
        ("measurements: [{role: agg}]", "measurements[0] has no id"),
        ("inferencex: [{id: x1, hw: H200}]", "row x1: no 'engine'"),
        (yaml.safe_dump({"inferencex": [{**UNIFIED, "isl": "many"}]}), "row a: isl is 'many'"),
        (yaml.safe_dump({"inferencex": [{**UNIFIED, "tpot_ms": -1}]}), "row a: tpot_ms is -1"),
        (yaml.safe_dump({"inferencex": [{**APART, "P": [1, 2]}]}), "row b: "),
        (yaml.safe_dump({"measurements": [{**ROW, "metrics": 7}]}), "row c: "),
        (yaml.safe_dump({"measurements": [{**ROW, "hardware": None}]}), "row c: "),
    ],
)
def test_what_breaks_the_format_is_one_message_with_the_row(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_figures(text)
    assert said in caught.value.cause
    assert "\n" not in str(caught.value)
    assert caught.value.cure


def test_words_of_rows() -> None:
    assert engine_of("TensorRT-LLM (Dynamo)") == (EngineFamily.TRTLLM, "")
    assert engine_of("DeepSeek in-house")[0] is EngineFamily.IN_HOUSE
    assert drafts_of(None).drafts == 0
    assert drafts_of(3).drafts == 3
    assert (drafts_of("3 drafts, accept len 2.37")).accepted == 2.37
    assert drafts_of("SIMULATED, 60% acceptance").accepted == 1.6
    sglang = EngineFamily.SGLANG
    assert precision_of("NVFP4, FP8 KV", sglang)[0].experts is Weight.NVFP4
    assert precision_of("FP8 MoE, BF16 attention/KV", sglang)[0].dense is Weight.BF16
    assert precision_of("FP8 + FP8 MLA", sglang)[0].kv is Kv.FP8
    assert precision_of("fp8", EngineFamily.TRTLLM)[0].kv is Kv.FP8
