"""Overload in the simulator: goodput, what waits, and how equal tenants fare, as JSON."""

import json
import sys

from tests.sim.test_overload import CAPACITY, goodput, run


def main() -> int:
    """Measures; 1 if a target is missed."""
    at = {load: goodput(run(load)) for load in (0.8, 0.9, 1.0, 1.5, 2.0, 3.0)}
    peak = max(at[load] for load in (0.8, 0.9, 1.0))
    waiting = {lasts_s: run(2.0, lasts_s).most_waiting for lasts_s in (45.0, 90.0, 180.0)}
    equal = run(2.0, shares={"a": 1, "b": 1, "c": 1, "d": 1}).finished
    jain = sum(equal.values()) ** 2 / (len(equal) * sum(each**2 for each in equal.values()))
    print(
        json.dumps(
            {
                "capacity_per_s": CAPACITY,
                "share_of_peak": {f"{load:g}": got / peak for load, got in at.items()},
                "most_waiting": {f"{lasts_s:g}": most for lasts_s, most in waiting.items()},
                "jain": jain,
            }
        )
    )
    return 0 if at[2.0] >= 0.9 * peak and jain >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
