"""How good the search for a capacity is, on exact queues whose capacity is known.

    python -m tests.bench.capacity_coverage [--seeds 200]

Prints for each queue the error of the estimate, how often its interval has the truth in it, and
what it cost in windows and requests. Poisson arrivals; k servers; the SLO bounds the wait.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.result import Slo, Verdict
from tests.known_queues import (
    DeterministicQueue,
    GeneralQueue,
    Queue,
    deterministic_capacity,
    erlang_capacity,
    searched,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A queue, and the load that it takes."""

    name: str
    make: Callable[[int], Queue]
    slo: Slo
    truth_per_s: Callable[[], float]


def _deterministic(servers: int, service_s: float, bound_s: float, share: float) -> Case:
    return Case(
        f"M/D/{servers}",
        lambda seed: DeterministicQueue(servers, service_s, seed),
        Slo(bound_s, None, share=share),
        lambda: deterministic_capacity(servers, service_s, bound_s, share),
    )


def _exponential(servers: int, service_s: float, bound_s: float, share: float) -> Case:
    def make(seed: int) -> Queue:
        draw = random.Random(f"service {seed}")
        return GeneralQueue(servers, lambda: draw.expovariate(1 / service_s), seed)

    return Case(
        f"M/M/{servers}",
        make,
        Slo(bound_s, None, share=share),
        lambda: erlang_capacity(servers, service_s, bound_s, share),
    )


CASES = (
    _deterministic(4, 0.2, 0.5, 0.95),
    _deterministic(16, 0.2, 0.5, 0.95),
    _deterministic(32, 1.0, 2.0, 0.99),
    _exponential(8, 0.2, 0.4, 0.95),
    _exponential(32, 0.5, 0.5, 0.95),
)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    seeds = parser.parse_args().seeds
    print(
        f"{'queue':<8}{'share':>6}{'truth/s':>9}{'bias':>8}{'sd':>7}{'>5 %':>7}{'covers':>8}"
        f"{'±':>7}{'windows':>9}{'requests':>10}{'found':>7}"
    )
    for case in CASES:
        truth = case.truth_per_s()
        rows = [_one(case, seed, truth) for seed in range(seeds)]
        errors = [row[0] for row in rows]
        mean = sum(errors) / seeds
        spread = (sum((error - mean) ** 2 for error in errors) / seeds) ** 0.5
        far = sum(abs(error) > 0.05 for error in errors) / seeds
        covers, wide, windows, requests, found = (
            sum(row[at] for row in rows) / seeds for at in range(1, 6)
        )
        print(
            f"{case.name:<8}{case.slo.share:>6.2f}{truth:>9.2f}{mean:>+8.2%}{spread:>7.2%}"
            f"{far:>7.1%}{covers:>8.1%}{wide:>7.2%}{windows:>9.1f}{requests:>10,.0f}{found:>7.0%}",
            flush=True,
        )


def _one(case: Case, seed: int, truth: float) -> tuple[float, float, float, float, float, float]:
    capacity, windows = searched(case.make(seed), case.slo)
    assert capacity.high_per_s is not None
    return (
        capacity.per_s / truth - 1,
        float(capacity.low_per_s <= truth <= capacity.high_per_s),
        (capacity.high_per_s - capacity.low_per_s) / 2 / capacity.per_s,
        len(windows),
        sum(window.due for window in windows),
        float(capacity.verdict is Verdict.FOUND),
    )


if __name__ == "__main__":
    main()
