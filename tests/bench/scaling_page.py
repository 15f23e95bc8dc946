"""Writes docs/scaling.md from what `scaling_day`, `soak`, `scaling_speed` and `overload` measured.

    python -m tests.bench.scaling_page --folder DIR [--days sine-1,office-1] docs/scaling.md

plays the days and tells the stories that the folder does not have yet: `make docs-scaling`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from orchestrator.core import Role
from orchestrator.scaling import Gangs, Observation, Plan, Seen, State, decide, plan_of
from orchestrator.sim.day import DAY_S, DAYS
from orchestrator.sim.scaling_day import needed, spec_of
from tests.bench.scaling_day import (
    CONTENDERS,
    KEEPS,
    Row,
    Scores,
    best_fixed,
    day_of,
    of,
    targets,
    waits,
)

_DAYS = "sine-1,sine-2,office-1,office-2,servegen-0"
SOAK = range(0, 2_000, 250)
_WAVES_S = (60.0, 120.0, 240.0, 300.0, 420.0, 600.0, 900.0, 1_800.0)


def main() -> int:
    """Plays what is missing, and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--days", default=_DAYS)
    options = parser.parse_args()
    days = {day: rows_of(options.folder, day) for day in options.days.split(",")}
    page = PAGE.format(
        days="\n\n".join(day_part(day, rows) for day, rows in days.items()),
        waits=waits_part(options.folder, next(iter(days))),
        soak=soak_part(options.folder),
        overload=overload_part(_measured("overload")),
        waves=waves_part(),
        speed=speed_part(_measured("scaling_speed")),
    )
    options.out.write_text(page, encoding="utf-8")
    return 0


# --- what is measured elsewhere ------------------------------------------------------------------


def rows_of(folder: Path, day: str) -> list[Row]:
    """The contenders' scores on one day, played if they are not there."""
    scores = Scores(day, folder)
    return [row for contender in CONTENDERS for row in contender(day_of(day), scores)]


def _run(name: str, *words: str) -> str:
    command = [sys.executable, "-m", f"tests.bench.{name}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _measured(name: str) -> "Tree":
    found: Tree = json.loads(_run(name).splitlines()[-1])
    return found


Tree = Mapping[str, Mapping[str, float]] | Sequence[Mapping[str, float]]


# --- the parts of the page -----------------------------------------------------------------------


def day_part(day: str, rows: list[Row]) -> str:
    """One day's table and what it reaches."""
    best = of(rows, "hindsight")[0]
    table = [
        "| | within the SLO | GPU-hours | beside hindsight | starting | ending | changes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = row.score
        table.append(
            f"| {row.name} | {score.attainment:.2%} | {score.gpu_hours:,.0f} "
            f"| {score.gpu_hours / best.gpu_hours - 1:+.1%} | {score.starting_gpu_hours:.0f} "
            f"| {score.ending_gpu_hours:.0f} | {score.changes} |"
        )
    saved = 1 - of(rows, "ours")[0].gpu_hours / best_fixed(rows).gpu_hours
    reached = [
        f"- {'reached' if kept else '**missed**'}: {target}"
        for target, kept in targets(rows).items()
    ]
    name, seed, *_ = day.split("-")
    played = day_of(day)
    lasts = "" if played.lasts_s == DAY_S else f", in {played.lasts_s / 3_600:g} hours"
    times = played.most / DAYS[name].most
    load = "" if times == 1 else f", {times:g} times the load"
    head = f"### {name}, seed {seed}{lasts}{load}: {best.requests:,} requests"
    return "\n".join(
        [head, "", *table, "", f"{saved:.1%} fewer GPU-hours than the best fixed fleet.", *reached]
    )


def waits_part(folder: Path, day: str) -> str:
    """What it costs, on one day, not to wait for thoughts."""
    rows = [
        "| a drain waits | within the SLO | GPU-hours | of them ending |",
        "|---|---|---|---|",
    ]
    for wait_s, score in waits(day_of(day), Scores(day, folder)):
        rows.append(
            f"| {wait_s:,.0f} s | {score.attainment:.2%} | {score.gpu_hours:,.0f} "
            f"| {score.ending_gpu_hours:.0f} |"
        )
    return "\n".join(rows)


def soak_part(folder: Path) -> str:
    """How many stories were told, and how many broke a rule."""
    faults: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    seeds = broken = 0
    for first in SOAK:
        path = folder / f"soak-{first}.json"
        if not path.exists():
            words = ("--first", str(first), "--seeds", str(SOAK.step), "--folder", str(folder))
            _run("soak", *words)
        told = json.loads(path.read_text())
        seeds, broken = seeds + told["seeds"], broken + len(told["broken"])
        for sums, counts in ((faults, told["faults"]), (outcomes, told["outcomes"])):
            for name, count in counts.items():
                sums[name] = sums.get(name, 0) + count
    listed = ", ".join(f"{count:,} {name}" for name, count in sorted(faults.items()))
    ends = ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items()))
    return f"{seeds:,} seeds: {broken} broke a rule. Faults: {listed}. Ends: {ends}."


def overload_part(found: Tree) -> str:
    """Goodput, memory and fairness."""
    assert isinstance(found, Mapping)
    share, waiting = found["share_of_peak"], found["most_waiting"]
    loads = " | ".join(f"{load} x" for load in share)
    got = " | ".join(f"{each:.0%}" for each in share.values())
    line = "|---" * (len(share) + 1) + "|"
    spans = ", ".join(f"{most:.0f} in {lasts_s} s" for lasts_s, most in waiting.items())
    return (
        f"| load, of capacity | {loads} |\n{line}\n| goodput, of the peak | {got} |\n\n"
        f"Most that ever waited at twice the capacity: {spans}. "
        f"Jain's index of four equal tenants: {found['jain']:.4f}."
    )


def waves_part() -> str:
    """Changes an hour under loads that are made to provoke them."""
    spec = spec_of()
    plan = plan_of(spec, spec.models[0])
    cells = [f"{wave_s:.0f} s" for wave_s in _WAVES_S]
    counts = [f"{_changes(plan, wave_s):.1f}" for wave_s in _WAVES_S]
    line = "|---" * (len(cells) + 1) + "|"
    return (
        f"| the load doubles and halves every | {' | '.join(cells)} |\n{line}\n"
        f"| changes of a pool an hour | {' | '.join(counts)} |"
    )


def _changes(plan: Plan, wave_s: float, hours: float = 6.0) -> float:
    """Of one pool, an hour, behind the first two hours; gangs start as they do."""
    state, now = State(), 0.0
    ready_at: dict[Role, list[float]] = {
        role: [0.0] * count for role, count in needed(spec_of(), 0.4).items()
    }
    targets_of: dict[Role, list[int]] = {role: [] for role in ready_at}
    running = 0.3 * 300
    while now < (hours + 2) * 3_600:
        per_s = 0.6 if now % (2 * wave_s) < wave_s else 0.3
        load = Observation(per_s, 2.0, 5.0, 200.0, 8_000.0, running, 0.0, 2_560_000.0)
        pools = {
            role: Gangs(sum(at <= now for at in instants), sum(at > now for at in instants))
            for role, instants in ready_at.items()
        }
        decision, state = decide(plan, state, Seen(load, pools, now), now)
        for role, gangs in decision.gangs().items():
            instants = ready_at[role]
            instants += [now + plan.pools[role].start_s] * (gangs - len(instants))
            del instants[gangs:]
            if now >= 7_200:
                targets_of[role].append(gangs)
        now += plan.spec.period_s
        running += (per_s * 300 - running) * plan.spec.period_s / 300
    changes = sum(a != b for found in targets_of.values() for a, b in pairwise(found))
    return changes / len(targets_of) / hours


def speed_part(found: Tree) -> str:
    """Microseconds of a decision."""
    assert not isinstance(found, Mapping)
    rows = [
        f"| {row['requests_per_s']:g} | {row['gangs']:.0f} | {row['median_us']:.0f} "
        f"| {row['p99_us']:.0f} |"
        for row in found
    ]
    head = "| requests/s | gangs | median, us | P99, us |\n|---|---|---|---|"
    return "\n".join([head, *rows])


PAGE = f"""# Scaling: what a day costs

Written by `make docs-scaling`; every number is from the simulator on one CPU core, where gangs are arithmetic and what decides is
production's code. Seconds of engines are assumptions of `sim/scaling_day.py`, not measurements.

## The question

A fleet of one-node gangs, prefill and decode apart; a decode gang holds 28.8 thoughts of 8,000 tokens at the SLO's 50 ms a token. A gang takes
260 s to start, and whoever lets one go pays for it until its last thought has ended. The SLO is 10 s to the first token and 50 ms a token for
{KEEPS:.0%} of the requests. GPU-hours are those within the day.

* **Hindsight** knows every request beforehand. It starts gangs in time and lets them go in time, and fills batches as much as can be: the
  fullest schedule that still keeps the SLO *when it is played on the same simulator*. A bound that is not played is none: a schedule that fills
  every batch to the limit keeps the SLO for a few per cent of the requests.
* **The expected rate known** is what a perfect forecast would come to: how many requests are to be expected at each moment, not which.
* **The best fixed fleet** is the smallest that keeps the SLO over the day: with a prefill or a decode gang less it is kept no longer.
* **By utilisation** is Kubernetes' or Serve's own way: each pool by itself, up at once, down by the most of the last five minutes.

The days are those of `sim/day.py` that the command names (`DAYS=`); one in fewer hours than 24 is as much steeper, and one with more load has a
larger fleet. `sine` and `office` are curves, with other seeds than those that the policy was developed on. `servegen` has the rates of a production
DeepSeek-R1 service in windows of ten minutes, which double within one of them, with the requests of the same fleet.

{{days}}

## Why it is not nearer to hindsight

Of what lies between, a part is chance that hindsight knows. With some 200 thoughts in decode their number swings by 10 %, and a batch has to
have room for that: the perfect forecast, which does not look at what is in decode, pays it too. For the rest, the rate has to be estimated from the
requests that come, and a gang goes only when less has been enough for a dwell of one start, or for longer where gangs were missed again and again.
A day that is played in an hour asks another question: starts and thoughts do not shrink with it, and each step down costs ten minutes.

Prefill and decode are sized together: at the prefill pool a fifth of the prompts may come late, twenty times what the SLO lets, since a
burst that is more than it can prefill in time goes elsewhere, to at most 3 % of the time of the ranks that decode. A prompt that would be late
there, or would lengthen the pass for which another waits already so that this one is late, is prefilled where it is decoded, if the thoughts there
keep their pace (`routing/ways.py`); and of the ranks that decode, one is taken where first tokens come in time (`routing/choose.py`).

Where the load doubles within the time that a gang takes to start (`servegen`), a forecast comes too late. `scaling` learns some headroom from
being short, and a calendar may say what it cannot know.

## How long a drain waits

What a gang that is let go has not ended in time is moved: prompt and thought so far are computed again elsewhere, all at once, in batches that
were full already. The first of the days, with other values of `fleet.drain_wait_s`:

{{waits}}

## No flip-flop

{{waves}}

The number in decode follows the load with the length of a thought, five minutes. What stays for less than three starts moves next to nothing,
once gangs have been missed twice in a row; what stays for a quarter of an hour is followed, by several gangs up and several down.

`tests/unit/scaling/test_decide.py` has the property: no load makes a pool go down twice within a dwell of going up.

## Faults

{{soak}}

`make soak` tells them under pytest and shrinks what breaks a rule.

## Overload

{{overload}}

## How long a decision takes

Serve calls it in its controller, where nothing may wait. CPU time:

{{speed}}
"""

if __name__ == "__main__":
    sys.exit(main())
