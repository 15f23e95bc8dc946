"""Arrivals are as they are specified: counts, mean, burstiness."""

import math
import random
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.arrivals import Trace, bent, drawn_unit, whole_trace
from loadtest.shapes import Passage, Shape, day, made, ramp, soak, spike, step
from orchestrator.core import SpecError
from orchestrator.workload import (
    Arrivals,
    TraceRequest,
    constant,
    open_trace,
    summarise,
)
from orchestrator.workload.workload import Workload

HOUR_S = 1_000.0
SHAPES = {
    "soak": soak(20.0, HOUR_S),
    "ramp": ramp(5.0, 40.0, HOUR_S),
    "step": step(5.0, 40.0, HOUR_S),
    "spike": spike(10.0, 60.0, HOUR_S),
    "day": day(5.0, 40.0, HOUR_S),
}
BINS = 60
# Chi-square of 60 bins with known means: above this in one of 10,000 runs (Wilson and Hilferty).
CHI_SQUARE_MOST = BINS * (1 - 2 / (9 * BINS) + 3.719 * math.sqrt(2 / (9 * BINS))) ** 3
SLICES = Path("tests/bench/traces")


def workload(gap_cv: float) -> Workload:
    made = constant("w", "a test", input_tokens=100, output_tokens=10)
    return summarised(made, gap_cv)


def summarised(made: Workload, gap_cv: float) -> Workload:
    return Workload(
        made.name,
        made.source,
        made.input_tokens,
        made.output_tokens,
        made.decode_context_tokens,
        0.0,
        Arrivals(1.0, 1.0, gap_cv),
    )


def instants(shape: Shape, gap_cv: float, seed: int = 1) -> list[float]:
    unit = drawn_unit(workload(gap_cv), lambda name: random.Random(f"{seed}/{name}"))
    found: list[float] = []
    for request in bent(unit, shape):
        if request.at_s >= shape.end_s:
            return found
        found.append(request.at_s)
    raise AssertionError


@pytest.mark.parametrize("name", SHAPES)
def test_counts_are_those_of_a_poisson_process_with_the_shapes_rate(name: str) -> None:
    shape = SHAPES[name]
    found = instants(shape, 1.0)
    width_s = shape.end_s / BINS
    chi_square = 0.0
    for number in range(BINS):
        low_s, high_s = number * width_s, (number + 1) * width_s
        expected = shape.mean_per_s(low_s, high_s) * width_s
        seen = sum(low_s <= at_s < high_s for at_s in found)
        chi_square += (seen - expected) ** 2 / expected
    assert chi_square < CHI_SQUARE_MOST


@pytest.mark.parametrize("gap_cv", [0.3, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("name", ["soak", "day"])
def test_mean_and_burstiness_are_within_five_percent(name: str, gap_cv: float) -> None:
    shape = SHAPES[name]
    found = instants(shape, gap_cv)
    assert len(found) == pytest.approx(shape.expected(shape.end_s), rel=0.05)
    passage = Passage(shape)
    gaps = [passage.expected(b) - passage.expected(a) for a, b in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation / mean == pytest.approx(gap_cv, rel=0.05)


@pytest.mark.parametrize(
    "name", ["mooncake_conversation_slice", "mooncake_synthetic_slice", "servegen_r1_slice"]
)
def test_a_replayed_trace_keeps_its_bursts_at_another_rate(name: str) -> None:
    path = SLICES / f"{name}.jsonl.gz"
    trace = whole_trace(open_trace(path, random.Random), name, None)
    own = summarise(name, name, trace.requests)
    shape = soak(2.5 * trace.per_s, 1e9)
    played = list(islice(bent(trace.unit(), shape), len(trace.requests)))
    again = summarise(name, name, played)
    assert own.arrivals is not None
    assert again.arrivals is not None
    assert again.arrivals.requests_per_s == pytest.approx(2.5 * own.arrivals.requests_per_s)
    assert again.arrivals.gap_cv == pytest.approx(own.arrivals.gap_cv)
    assert [each.hash_ids for each in played] == [each.hash_ids for each in trace.requests]


def test_a_second_pass_repeats_no_text_and_comes_behind_the_first() -> None:
    trace = Trace("t", [TraceRequest(at, 100, 1, (int(at),)) for at in (0.0, 2.0, 6.0)])
    played = list(islice(trace.unit(), 9))
    assert len({each.hash_ids for each in played}) == 9
    at_s = [each.at_s for each in played]
    assert at_s == pytest.approx([0, 2 / 3, 2, 3, 11 / 3, 5, 6, 20 / 3, 8])
    fifth, sixth = islice(trace.unit(4), 2)
    assert fifth.hash_ids == played[4].hash_ids
    assert sixth.at_s == pytest.approx(5 - 11 / 3)


def test_a_broken_line_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    good = '{"timestamp": 0, "input_length": 5, "output_length": 1}\n'
    path.write_text(good * 3 + '{"timestamp": 0, "input_length": }\n')
    with pytest.raises(SpecError, match="line 4"):
        whole_trace(open_trace(path, random.Random), path.name, None)
    with pytest.raises(SpecError, match="apart in time"):
        whole_trace(open_trace(path, random.Random), path.name, 2)


@pytest.mark.parametrize("name", SHAPES)
@given(st.floats(0, 1))
def test_an_instant_is_the_inverse_of_a_count(name: str, share: float) -> None:
    passage = Passage(SHAPES[name])
    at_s = share * 1.2 * HOUR_S
    assert passage.instant(passage.expected(at_s)) == pytest.approx(at_s, abs=1e-4)


def test_windows_end_at_the_edges_and_know_what_is_asked_in_them() -> None:
    spans = spike(10.0, 60.0, 100.0).spans(30.0)
    assert [(span.begin_s, span.end_s) for span in spans] == [
        (0, 20), (20, 40), (40, 60), (60, 80), (80, 100),
    ]  # fmt: skip
    assert [span.offered_per_s for span in spans] == pytest.approx([10, 10, 60, 10, 10])
    (first, *_), last = ramp(0.0, 10.0, 100.0).spans(50.0), ramp(0.0, 10.0, 100.0).spans(50.0)[-1]
    assert (first.offered_per_s, last.offered_per_s) == pytest.approx((2.5, 7.5))


@pytest.mark.parametrize(
    ("name", "at_s", "per_s"),
    [("ramp", 0, 20), ("ramp", 99, 99), ("spike", 10, 20), ("spike", 50, 100), ("soak", 50, 100),
     ("step", 5, 20), ("step", 95, 100), ("day", 0, 20), ("day", 50, 100), ("ramp", 300, 100)],
)  # fmt: skip
def test_a_shape_has_a_rate_at_each_instant(name: str, at_s: float, per_s: float) -> None:
    assert made(name, 20.0, 100.0, 100.0).at(at_s) == pytest.approx(per_s, abs=1)
