"""`make alerts-day`: a healthy day of a simulated fleet through our rules: nothing may fire."""

import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from tests.sim.alert_series import played, promtool_test
from tests.sim.test_alerts import SCENARIO, WITH_SLO

DAY_S = 86_400.0
PER_S_MIN, PER_S_MAX = 0.02, 0.2


def calls(until_s: float) -> Iterator[Call]:
    """More by day than by night, each like any other."""
    chance = Chance(1)
    arrivals, lengths = chance("arrivals"), chance("lengths")
    at, number = 0.0, 0
    while at < until_s:
        high = 0.5 - 0.5 * math.cos(2 * math.pi * at / DAY_S)
        at += arrivals.expovariate(PER_S_MIN + (PER_S_MAX - PER_S_MIN) * high)
        output = 30 + lengths.randrange(20)
        yield Call(number, at, 300, output, thinking_tokens=output // 2, max_tokens=400)
        number += 1


def main() -> int:
    """Prints what promtool has against it; 1 if anything fired."""
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 24.0
    scenario = replace(SCENARIO, spec=WITH_SLO)
    recording = played(scenario, calls(3600 * hours))
    with tempfile.TemporaryDirectory() as folder:
        said = promtool_test(Path(folder), recording, ())
    print(
        f"{hours:g} hours, {recording.scrapes} scrapes of {len(recording.values)} series: "
        f"{said or 'no alert fired'}"
    )
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
