"""Traces: what the lines say, and what is wrong with a line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import SpecError
from orchestrator.workload import (
    BLOCK_TOKENS,
    TraceRequest,
    at_rate,
    read_trace,
    summarise,
)

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.6805900,396,109
2023-11-16 18:15:54.6805900,100,10
"""


def line(at_ms: int, prompt: int, output: int, *hash_ids: int) -> str:
    row = {"timestamp": at_ms, "input_length": prompt, "output_length": output}
    return json.dumps(row | ({"hash_ids": hash_ids} if hash_ids else {}))


def test_json_lines_become_rates_lengths_and_prefix_hits() -> None:
    seen = read_trace(
        [
            line(0, 1024, 100, 1, 2),
            line(1_000, 1536, 100, 1, 2, 3),  # two blocks are there already
            line(2_000, 600, 400, 7, 3),  # the third is, but not as a prefix
        ],
        "t",
    )
    assert seen.input_tokens.mean == pytest.approx((1024 + 1536 + 600) / 3)
    assert (seen.output_tokens.p50, seen.output_tokens.max) == (100, 400)
    assert seen.prefix_hit == pytest.approx(2 * BLOCK_TOKENS / (1024 + 1536 + 600))
    assert seen.arrivals is not None
    assert seen.arrivals.requests_per_s == pytest.approx(1.0)
    assert seen.arrivals.gap_cv == pytest.approx(0.0)


def test_azure_csv_is_read() -> None:
    seen = read_trace(AZURE.splitlines(), "t")
    assert seen.input_tokens.mean == pytest.approx(290.0)
    assert seen.arrivals is not None
    assert seen.arrivals.requests_per_s == pytest.approx(0.25)
    assert seen.prefix_hit == 0.0


def test_long_outputs_weigh_more_in_the_context_of_a_decode_step() -> None:
    seen = summarise("t", "", [TraceRequest(0.0, 100, 10), TraceRequest(1.0, 1_000, 1_000)])
    assert seen.decode_context_tokens == pytest.approx((105 * 10 + 1_500 * 1_000) / 1_010)


def test_the_peak_is_that_of_the_busiest_minute() -> None:
    quiet = [TraceRequest(60.0 * minute, 1, 1) for minute in range(10)]
    busy = [TraceRequest(130.0 + i, 1, 1) for i in range(29)]
    arrivals = summarise("t", "", quiet + busy).arrivals
    assert arrivals is not None
    assert arrivals.peak_requests_per_s == pytest.approx(30 / 60)
    assert arrivals.requests_per_s == pytest.approx(38 / 540)


def test_requests_of_one_instant_have_no_rate() -> None:
    assert summarise("t", "", [TraceRequest(5.0, 1, 1)] * 3).arrivals is None


def test_another_rate_moves_the_peak_with_it() -> None:
    seen = summarise("t", "", [TraceRequest(float(i * i), 10, 10) for i in range(50)])
    assert seen.arrivals is not None
    doubled = at_rate(seen, 2 * seen.arrivals.requests_per_s).arrivals
    assert doubled is not None
    assert doubled.peak_requests_per_s == pytest.approx(2 * seen.arrivals.peak_requests_per_s)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no trace"),
        (["time;prompt"], "no trace: it begins 'time;prompt'"),
        ([line(0, 1, 1)], "holds 1 requests"),
        ([line(0, 1, 1), "{}"], "line 2: no timestamp"),
        ([line(0, 1, 1), '{"timestamp": 1, "input_length": 1}'], "line 2: no output_length"),
        ([line(0, 1, 1), "{"], "line 2"),
        ([line(0, 1, 1), "[1]"], "line 2"),
        ([line(0, 1, 1), line(0, -1, 1)], "line 2: a negative length"),
        ([line(0, 1, 1), line(0, 1, 1).replace("1", '"x"')], "line 2"),
        ([*AZURE.splitlines(), "2023-11-16,1"], "line 5"),
        ([*AZURE.splitlines(), "yesterday,1,2"], "line 5"),
    ],
)
def test_a_bad_line_is_named(lines: list[str], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_trace(lines, "t")
    assert said in refused.value.cause
    assert refused.value.cure


requests = st.builds(
    TraceRequest,
    st.floats(0, 1e5),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 9), max_size=5).map(tuple),
)


@given(st.lists(requests, min_size=2, max_size=30))
def test_a_summary_is_inside_the_bounds_of_its_trace(trace: list[TraceRequest]) -> None:
    seen = summarise("t", "", trace)
    assert 0 <= seen.prefix_hit <= 1
    for lengths in (seen.input_tokens, seen.output_tokens):
        assert lengths.p50 <= lengths.p90 <= lengths.p99 <= lengths.max
        assert lengths.mean <= lengths.max
    longest = max(r.input_tokens + r.output_tokens / 2 for r in trace)
    assert 0 <= seen.decode_context_tokens <= longest * (1 + 1e-9)
    if seen.arrivals is not None:
        assert seen.arrivals.peak_requests_per_s >= seen.arrivals.requests_per_s
    assert summarise("t", "", trace[::-1]).input_tokens == seen.input_tokens
