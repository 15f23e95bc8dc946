"""How long a decision of scaling takes: Serve calls it in its controller, which must not wait.

Prints microseconds of CPU for fleets of several sizes, as JSON; exits with 1 if a median is above
a millisecond.
"""

import json
import random
import statistics
import sys
import time

from orchestrator.core import Role
from orchestrator.scaling import Gangs, Observation, Seen, State, decide, plan_of
from orchestrator.sim.scaling_day import spec_of

_LIMIT_S = 1e-3
_DECISIONS = 2_000
_PERIOD_S = 10.0


def main() -> int:
    """Measures."""
    rows = [measured(per_s) for per_s in (0.4, 4.0, 40.0)]
    print(json.dumps(rows))
    return 0 if all(row["median_us"] < _LIMIT_S * 1e6 for row in rows) else 1


def measured(per_s: float) -> dict[str, float]:
    """A fleet that carries so many requests a second, with an hour of samples and a full dwell."""
    spec = spec_of()
    plan = plan_of(spec, spec.models[0])
    state, chance, took = State(), random.Random(1), []
    gangs = {Role.PREFILL: 1, Role.DECODE: 1}
    for at in range(_DECISIONS):
        now = at * _PERIOD_S
        rate = per_s * chance.uniform(0.7, 1.3)
        load = Observation(rate, 2.0, 5.0, 200.0, 8_000.0, rate * 320, 3.0, 2_000_000.0)
        seen = Seen(load, {role: Gangs(count) for role, count in gangs.items()}, now)
        began = time.process_time()
        decision, state = decide(plan, state, seen, now)
        took.append(time.process_time() - began)
        gangs = decision.gangs()
    took = sorted(took[_DECISIONS // 4 :])  # with a full memory
    return {
        "requests_per_s": per_s,
        "gangs": sum(gangs.values()),
        "median_us": round(statistics.median(took) * 1e6, 1),
        "p99_us": round(took[int(0.99 * len(took))] * 1e6, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
