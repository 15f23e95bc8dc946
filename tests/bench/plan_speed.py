"""`python -m tests.bench.plan_speed`: how long `r1-serve plan` takes, process start included.

CPU seconds of one process on one core, and the wall time beside them, which on a busy machine says
more about its other users.
"""

import os
import resource
import subprocess
import sys
import time

SLO = ("--slo", "ttft=2s,itl=50ms")
CASES = {
    "32xH200": ("--gpus", "32xH200", *SLO),
    "32xH200, 15 requests/s, --explain": (
        *("--gpus", "32xH200", *SLO),
        *("--workload", "chat,rate=15", "--explain"),
    ),
    "1024xH200": ("--gpus", "1024xH200", *SLO),
    "1024xH200, 300 requests/s, for latency": (
        *("--gpus", "1024xH200", *SLO),
        *("--workload", "chat,rate=300", "--objective", "latency"),
    ),
}
ROUNDS = 3


def rows() -> list[str]:
    """A row of a Markdown table for each case: least CPU seconds and least wall seconds."""
    found = []
    for name, arguments in CASES.items():
        runs = [_run(arguments) for _ in range(ROUNDS)]
        cpu, wall = (min(column) for column in zip(*runs, strict=True))
        found.append(f"| {name} | {cpu:.2f} | {wall:.2f} |")
    return found


def _run(arguments: tuple[str, ...]) -> tuple[float, float]:
    # numpy's linear algebra is not used; this only keeps it from starting threads.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    before, began_at = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "plan", *arguments],
        stdout=subprocess.DEVNULL,
        check=True,
        env=environment,
    )
    wall_s = time.monotonic() - began_at
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


if __name__ == "__main__":
    sys.stdout.write("\n".join(["| plan | CPU s | wall s |", "|---|---|---|", *rows(), ""]))
