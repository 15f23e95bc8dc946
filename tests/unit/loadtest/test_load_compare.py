"""Comparing runs: equal ones are called different seldom, different ones are told apart."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loadtest.compare import Finding, compare
from loadtest.result import VERSION, Capacity, Counts, Latency, Result, Slice, Slo, Tokens, Verdict
from loadtest.result import Window as LoadWindow
from orchestrator.cli import main
from orchestrator.core import Histogram
from tests.known_queues import DeterministicQueue

SLO = Slo(ttft_s=0.5, itl_s=0.1, share=0.95)
LOADS = (8.0, 14.0, 17.0)  # of some 20 that the queue serves: the last in bursts
_EMPTY = Counts(0, 0.0, 0.0, {})


def window(per_s: float, seed: int, service_s: float, token_s: float) -> LoadWindow:
    """Two minutes of four servers in the steady state, so that waits are no independent draws."""
    queue = DeterministicQueue(4, service_s, seed)
    queue.waits(per_s, 60.0, drain=True)
    at, waits = queue.waits(per_s, 120.0, drain=False)
    draw = random.Random(f"{seed} {per_s}")
    ttft, token = Histogram(), Histogram()
    slices = [Slice(0, 0) for _ in range(12)]
    for instant, wait in zip(at, waits, strict=True):
        part = slices[int(instant / 10.0)]
        own_s = token_s * draw.uniform(0.8, 1.2)
        ttft_s = float(wait) + 0.05
        ttft.add(ttft_s)
        token.add(own_s)
        part.due += 1
        part.ended += 1
        part.ttft_s += ttft_s
        part.tpot_s += own_s
        part.good += ttft_s <= 0.5
    due = len(at)
    return LoadWindow(
        offered_per_s=per_s,
        begin_s=0.0,
        end_s=120.0,
        due=due,
        ended=due,
        good=sum(part.good for part in slices),
        errors={},
        latencies={
            Latency.TTFT: Counts.of(ttft),
            Latency.TPOT_THINKING: Counts.of(token),
            Latency.TPOT_ANSWER: Counts.of(token),
        },
        tokens=Tokens(100 * due, 0, 100 * due, 100 * due),
        slices=slices,
        concurrency=per_s,
        lag=_EMPTY,
        late=_EMPTY,
    )


def run(
    seed: int, service_s: float = 0.2, token_s: float = 0.04, loads: Sequence[float] = LOADS
) -> Result:
    windows = [window(per_s, seed * 100 + at, service_s, token_s) for at, per_s in enumerate(loads)]
    words = ["r1-serve", "bench", "run"]
    return Result(
        VERSION, "2026-01-05T09:00:00Z", "http://a", "m", "chat", words, seed, 1, SLO, windows
    )


def test_equal_runs_are_called_different_in_at_most_one_of_ten_comparisons() -> None:
    found = [bool(compare(run(seed), run(seed + 1000)).told) for seed in range(40)]
    assert np.mean(found) <= 0.1


@pytest.mark.parametrize(
    ("change", "measure"),
    [((0.24, 0.04), "TTFT"), ((0.2, 0.043), "TPOT")],
)
def test_a_real_difference_is_found_nearly_always(
    change: tuple[float, float], measure: str
) -> None:
    found = 0
    for seed in range(20):
        seen = compare(run(seed), run(seed + 1000, *change))
        found += any(
            one.finding is Finding.WORSE and (measure in one.measure or "SLO" in one.measure)
            for one in seen.differences
        )
    assert found >= 18


def test_capacities_differ_only_where_their_intervals_are_apart() -> None:
    a, b = run(1), run(2)
    a.capacity = Capacity(Verdict.FOUND, 10.0, 9.7, 10.3, "")
    b.capacity = Capacity(Verdict.FOUND, 10.3, 10.0, 10.6, "")
    near = [one for one in compare(a, b).differences if one.measure == "capacity"]
    assert [one.finding for one in near] == [Finding.NONE]
    b.capacity = Capacity(Verdict.FOUND, 12.0, 11.6, 12.4, "")
    apart = [one for one in compare(a, b).differences if one.measure == "capacity"]
    assert [one.finding for one in apart] == [Finding.BETTER]


def test_the_command_says_so_and_its_code_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, result in (("a", run(1)), ("b", run(2)), ("slow", run(3, token_s=0.06))):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_bytes(msgspec.json.encode(result))
    a, b, slow = map(str, paths)
    assert main(["bench", "compare", a, b]) == 0
    assert "No difference can be told" in capsys.readouterr().out
    assert main(["bench", "compare", a, slow]) == 1
    table = capsys.readouterr().out
    assert "TPOT of answers p50" in table
    assert "worse" in table
    assert main(["bench", "compare", slow, a, "--format", "json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["told"] > 0
    assert tree["worse"] is False


def test_runs_that_cannot_be_compared_are_refused_with_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_bytes(msgspec.json.encode(run(1)))
    for other, cause in (
        (run(2, loads=(30.0,)), "no load in common"),
        (msgspec.structs.replace(run(2), slo=Slo(1.0, None)), "different SLOs"),
        (msgspec.structs.replace(run(2), workload="agent"), "of workload chat"),
    ):
        b.write_bytes(msgspec.json.encode(other))
        assert main(["bench", "compare", str(a), str(b)]) == 2
        assert cause in capsys.readouterr().err
