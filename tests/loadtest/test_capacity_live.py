"""`r1-serve bench find-capacity` on a real gateway over a fake engine of known capacity."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.exact_queue import capacity_per_s
from tests.loadtest.api_process import result_in

SLOTS, STEP_S, TOKENS = 32, 0.04, 16  # 50/s at most: a window near the knee takes a minute
TTFT_S, SHARE = 0.5, 0.9


@contextmanager
def fake_fleet(logs: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [
        *(sys.executable, "-m", "tests.loadtest.fake_fleet", "--slots", str(SLOTS)),
        *("--step-s", str(STEP_S), "--logs", str(logs)),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_capacity_of_a_real_gateway_over_a_fake_engine_is_recovered(
    tmp_path: Path, seed: int
) -> None:
    with fake_fleet(tmp_path) as fleet:
        assert fleet.stdout is not None
        assert fleet.stdin is not None
        url = fleet.stdout.readline().strip()
        command = [
            *(sys.executable, "-m", "orchestrator.cli", "bench", "find-capacity", "--url", url),
            *("--workload", f"input=100,output={TOKENS}", "--ttft-s", str(TTFT_S)),
            *("--share", str(SHARE), "--start-rate", "40", "--seed", str(seed)),
            *("--window-s", "30", "--windows-most", "16", "--out", str(tmp_path / "out")),
        ]
        assert subprocess.run(command, check=False).returncode == 0
        fleet.stdin.write("\n")
        fleet.stdin.flush()
        steps_s = json.loads(fleet.stdout.readline())
    # A step takes what it should and the machine's own delay, and now and then a stall makes a
    # queue: the truth is by what each step took.
    truth = partial(capacity_per_s, slots=SLOTS, tokens=TOKENS, ttft_s=TTFT_S, share=SHARE)
    true_per_s, mean_s = truth(steps_s=steps_s), sum(steps_s) / len(steps_s)
    found = result_in(tmp_path / "out").capacity
    print(f"{len(steps_s)} steps of {1e3 * mean_s:.2f} ms, the longest {max(steps_s):.2f} s")
    print(f"true {true_per_s:.3f}/s; without stalls {truth(steps_s=[mean_s]):.3f}/s; {found}")
    assert found is not None
    assert found.high_per_s is not None
    assert found.per_s == pytest.approx(true_per_s, rel=0.05)
    assert found.low_per_s <= true_per_s <= found.high_per_s
