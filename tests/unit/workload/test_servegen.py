"""ServeGen's client files."""

import json

import pytest

from orchestrator.core import SpecError
from orchestrator.workload import is_servegen, read_servegen


def dataset(**windows: tuple[str, str]) -> str:
    rows = {
        start.strip("_"): {"input_tokens": prompt, "output_tokens": output}
        for start, (prompt, output) in windows.items()
    }
    return json.dumps(rows)


FILES = {
    "data/x/chunk-0-trace.csv": "0,2,1,Gamma,1,1\n600,0,0,,0,0\n",
    "data/x/chunk-0-dataset.json": dataset(_0=("{100: 0.5, 300: 0.5}", "{10: 1.0}")),
    "data/x/chunk-7-trace.csv": "0,0,0,,0,0\n600,4,1,Gamma,1,1\n",
    "data/x/chunk-7-dataset.json": dataset(_0=("{}", "{}"), _600=("{50: 1.0}", "{20: 1.0}")),
    "data/x/README.md": "words",
}


def test_clients_are_mixed_by_their_rates() -> None:
    seen = read_servegen(FILES, "s")
    assert seen.input_tokens.mean == pytest.approx((2 * 200 + 4 * 50) / 6)
    assert seen.output_tokens.mean == pytest.approx((2 * 10 + 4 * 20) / 6)
    assert (seen.input_tokens.p50, seen.input_tokens.max) == (50, 300)
    assert seen.arrivals is not None
    assert seen.arrivals.requests_per_s == pytest.approx(3.0)
    assert seen.arrivals.peak_requests_per_s == pytest.approx(4.0)
    context = 2 * (200 * 10 + 10**2 / 2) + 4 * (50 * 20 + 20**2 / 2)
    assert seen.decode_context_tokens == pytest.approx(context / (2 * 10 + 4 * 20))


def test_file_names_tell_what_it_is() -> None:
    assert is_servegen(list(FILES))
    assert not is_servegen(["a/trace.csv", "b.json"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data/x/chunk-9-trace.csv": "0,1"}, "no chunk-9-dataset.json"),
        ({"data/x/chunk-7-dataset.json": "{"}, "chunk 7 is malformed"),
        ({"data/x/chunk-7-trace.csv": "zero"}, "chunk 7 is malformed"),
        ({"data/x/chunk-7-dataset.json": '{"0": {}}'}, "chunk 7 is malformed"),
    ],
)
def test_what_is_missing_or_malformed_is_named(change: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_servegen(FILES | change, "s")


def test_clients_that_send_nothing_are_no_workload() -> None:
    silent = {
        name: text.replace(",2,", ",0,").replace(",4,", ",0,") for name, text in FILES.items()
    }
    with pytest.raises(SpecError, match="send nothing"):
        read_servegen(silent, "s")
