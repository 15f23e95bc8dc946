"""A day of scaling in the simulator, beside fleets that stay as they are, a policy that looks at
utilisation alone, and what hindsight would have paid: `make bench-scaling`.

Exits with 1 if a target is missed: attainment at least that of the best fixed fleet with 30 % fewer
GPU-hours, within 10 % of hindsight, and better on both than by utilisation. `--hours` plays the day
in less time, which is harder: gangs take as long to start as ever.
"""

import argparse
import sys
from dataclasses import replace

from orchestrator.core import Role
from orchestrator.scaling import plan_of
from orchestrator.sim.scaling_day import (
    Day,
    Score,
    Utilisation,
    needed,
    optimum_gpu_hours,
    play,
    spec_of,
)

SHARES = (0.7, 0.8, 0.9)


def main() -> int:
    """Prints the table; 0 if every target is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    day = replace(Day(), lasts_s=options.hours * 3600, seed=options.seed)
    spec = spec_of()
    plan = plan_of(spec, spec.models[0])
    best = optimum_gpu_hours(day)
    print(f"hindsight                         {best:9,.1f} GPU-hours")
    ours = play(day)
    show("scaling", ours)
    fixed: list[Score] = []
    for more in (-1, 0, 1):
        gangs = needed(spec, day.most)
        gangs[Role.DECODE] += more
        fixed.append(play(day, fixed=gangs))
        show(f"fixed, {gangs[Role.PREFILL]} + {gangs[Role.DECODE]} gangs", fixed[-1])
    by_share = [(share, play(day, policy=Utilisation(plan, share))) for share in SHARES]
    for share, score in by_share:
        show(f"by utilisation, {share:.0%}", score)
    still = max(fixed, key=lambda score: (score.attainment, -score.gpu_hours))
    targets = {
        "attainment of the best fixed fleet": ours.attainment >= still.attainment,
        "30 % fewer GPU-hours than it": ours.gpu_hours <= 0.7 * still.gpu_hours,
        "within 10 % of hindsight": ours.gpu_hours <= 1.1 * best,
        "no policy by utilisation is better on either without being worse on the other": all(
            ours.attainment >= score.attainment or ours.gpu_hours <= score.gpu_hours
            for _, score in by_share
        ),
        "one of them is worse on both": any(
            ours.attainment > score.attainment and ours.gpu_hours < score.gpu_hours
            for _, score in by_share
        ),
    }
    for name, reached in targets.items():
        print(f"{'reached' if reached else 'MISSED '}  {name}")
    return 0 if all(targets.values()) else 1


def show(name: str, score: Score) -> None:
    """One line."""
    print(
        f"{name:<30} {score.attainment:8.2%} of {score.requests:,} requests  "
        f"{score.gpu_hours:9,.1f} GPU-hours  {score.changes:4} changes",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
