"""Fitting: the shipped factors are its output, and rows kept apart cannot reach it."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from orchestrator.cli.figures_text import published_text
from orchestrator.core import SpecError
from orchestrator.perf import read_factors, shipped_factors
from orchestrator.perf.cases import cases_of
from orchestrator.perf.figures import read_figures
from orchestrator.perf.fit import fit
from orchestrator.perf.own_rows import own_rows


def spoilt(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with other measurements, unless it is to be fitted."""
    if "calibrate" in (row.get("use"), row.get("split")):
        return dict(row)
    out = dict(row)
    for key in ("ttft_ms", "tpot_ms"):
        if key in out:
            out[key] *= 7.3
    metrics = out.get("metrics", {})
    out["metrics"] = {k: v / 9 if isinstance(v, int | float) else v for k, v in metrics.items()}
    return out


def test_the_shipped_factors_are_the_fit_of_the_calibrate_rows_alone() -> None:
    tree = yaml.load(published_text(), yaml.CSafeLoader)
    for section in ("measurements", "inferencex"):
        tree[section] = [spoilt(row) for row in tree[section]]
    spoilt_text = yaml.dump(tree, Dumper=yaml.CSafeDumper)
    rows, kept = (list(cases_of(read_figures(t))) for t in (spoilt_text, published_text()))
    changed = [a.id for a, b in zip(rows, kept, strict=True) if a.measured != b.measured]
    assert len(changed) == sum(case.use != "calibrate" for case in kept) > 200
    found = fit(rows)
    shipped = shipped_factors()
    assert dict(found.factors.values) == pytest.approx(dict(shipped.values), rel=2e-3)
    assert found.factors.multipliers.keys() == shipped.multipliers.keys()
    for name, by_kind in shipped.multipliers.items():
        assert dict(found.factors.multipliers[name]) == pytest.approx(dict(by_kind), rel=2e-3)
    assert len(found.row_ids) == 127
    assert found.error_after["tpot"] < found.error_before["tpot"] < 0.12


def test_without_a_row_to_fit_it_says_how_to_mark_one() -> None:
    kept = [case for case in cases_of(read_figures(published_text())) if case.use != "calibrate"]
    with pytest.raises(SpecError, match="calibrate"):
        fit(kept)


OWN = """phase,hardware,engine,tp,dp,ep,batch_per_rank,context_tokens,step_ms
decode,H200,vllm,8,1,1,1,2000,{0}
decode,H200,vllm,8,1,1,8,2000,{1}
decode,H200,vllm,8,1,1,32,4000,{2}
"""


def own(text: str) -> list[Any]:
    return list(cases_of(read_figures(yaml.safe_dump({"measurements": own_rows(text, "mine")}))))


def test_an_operators_slower_engine_moves_the_shipped_factors_its_way_and_not_far() -> None:
    rows = own(OWN.format(14.0, 25.0, 45.0))
    found = fit(rows, shipped_factors())
    assert found.error_after["tpot"] < found.error_before["tpot"]
    shipped, moved = shipped_factors(), found.factors
    assert moved.multipliers["pace"]["vllm"] > shipped.multipliers["pace"]["vllm"]
    assert moved.values["nic"] == pytest.approx(shipped.values["nic"], rel=1e-3)
    assert fit(rows, shipped_factors()) == found


def test_own_rows_of_each_phase_are_read_from_csv_and_json_lines() -> None:
    decode = own(OWN.format(10.0, 11.0, 12.0))[0]
    assert decode.measured == {"tpot": 0.01}
    assert (decode.side.layout.tp, decode.concurrency, decode.id) == (8, 1, "mine:2")
    lines = (
        '{"phase": "prefill", "hardware": "H200", "engine": "vllm", "tp": 8, "isl": 4000, '
        '"tokens_per_rank": 8000, "step_ms": 200}\n\n'
        '{"phase": "serve", "hardware": "H200", "engine": "vllm", "dp": 8, "ep": 8, "isl": 4000, '
        '"osl": 500, "concurrency": 32, "tpot_ms": 20, "mtp_drafts": 2, "accept_len": 2.2}'
    )
    prefill, serve = own(lines)
    assert prefill.measured == {"input_tokens": 5000}
    assert serve.measured == {"tpot": 0.02}
    assert (serve.side.layout.mtp_drafts, serve.accept_tokens) == (2, 2.2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine has no measurement"),
        ("phase,hardware\nserve,H200\n", "mine:2: no 'concurrency'"),
        ("phase,tp\nnap,8\n", "mine:2: phase 'nap'"),
        ('{"phase": "decode", "tp": "x"}', "mine:1: invalid literal"),
        ('{"phase": ', "mine:1: not JSON"),
    ],
)
def test_own_rows_that_make_no_sense_are_one_message_with_the_line(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        own_rows(text, "mine")
    assert said in caught.value.cause


@pytest.mark.parametrize(
    "text", ["[]", "values: {}", "values: {memory: x}\nmultipliers: {}", "a: ["]
)
def test_a_factors_file_that_is_none_is_one_message(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_factors(text)
    assert "factors" in caught.value.cause
