"""Days of scaling in the simulator, beside fleets that stay as they are, policies that look at
utilisation alone, and hindsight: `make docs-scaling` plays them and writes docs/scaling.md.

    python -m tests.bench.scaling_day sine-0 [--folder DIR]

plays one day, prints what each came to, and exits with 1 if a target is missed. With `--folder`
each score is left there, and what is there is not played again. All take ten minutes of one core.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.core import Role
from orchestrator.scaling import plan_of
from orchestrator.sim.day import DAYS, Day
from orchestrator.sim.hindsight import filled, foreseen, rate_known
from orchestrator.sim.scaling_day import Score, needed, play, spec_of
from orchestrator.sim.utilisation import Utilisation
from orchestrator.spec import FleetSpec

SHARES = (0.7, 0.6)
KEEPS = 0.99  # the SLO of `spec_of`


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's score."""

    name: str
    kind: str  # the contender's
    score: Score


def main() -> int:
    """Prints the table; 0 if every target is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "day",
        help=f"{' | '.join(DAYS)}-SEED; -SEED-HOURSh for a shorter one, -Nx for N times the load",
    )
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    day = day_of(options.day)
    scores = Scores(options.day, options.folder)
    rows: list[Row] = []
    for contender in CONTENDERS:
        for row in contender(day, scores):
            rows.append(row)
            print(line(row), flush=True)
    reached = targets(rows)
    for target, kept in reached.items():
        print(f"{'reached' if kept else 'MISSED '}  {target}")
    return 0 if all(reached.values()) else 1


def day_of(text: str) -> Day:
    """`sine-0`: the day of that name and seed; `sine-0-8h`: in so many hours; `sine-0-2x`: with so
    many times the load.
    """
    name, seed, *more = text.split("-")
    day = replace(DAYS[name], seed=int(seed))
    for part in more:
        much = float(part[:-1])
        if part.endswith("h"):
            day = replace(day, lasts_s=much * 3_600)
        elif part.endswith("x"):
            day = replace(day, least=much * day.least, most=much * day.most)
        else:
            raise ValueError(f"{text}: {part} is neither hours, as 8h, nor a load, as 2x")
    return day


class Scores:
    """What was played, kept in a folder so that a day can be played in pieces."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name = name
        self._folder = folder

    def of(self, what: str, played: Callable[[], Score]) -> Score:
        """The score of that name, played if it is not there."""
        if self._folder is None:
            return played()
        path = self._folder / f"{self._name}.{what}.json"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(played())))
        return Score(**json.loads(path.read_text()))


def ours(day: Day, scores: Scores) -> Iterator[Row]:
    """Production's policy."""
    yield Row("r1-serve", "ours", scores.of("ours", lambda: play(day)))


WAITS_S = (120.0, 600.0, 1_200.0)


def waits(day: Day, scores: Scores) -> Iterator[tuple[float, Score]]:
    """Production's policy with drains that wait so long before they move what still runs."""
    for wait_s in WAITS_S:
        spec = replace(spec_of(), fleet=FleetSpec(drain_wait_s=wait_s))
        name = "ours" if spec == spec_of() else f"wait-{wait_s:g}"
        yield wait_s, scores.of(name, partial(play, day, spec=spec))


def hindsight(day: Day, scores: Scores) -> Iterator[Row]:
    """Who knows each request, and who knows how many to expect."""
    found = foreseen(KEEPS, lambda fill: scores.of(f"filled-{fill:g}", lambda: filled(day, fill)))
    yield Row(f"hindsight, batches filled to {found.fill:.1%}", "hindsight", found.score)
    known = scores.of("rate", lambda: rate_known(day))
    yield Row("the expected rate known", "hindsight", known)


def fixed(day: Day, scores: Scores) -> Iterator[Row]:
    """Fleets that stay as they are, down to the smallest that keeps the SLO: with a gang less of
    either role it is kept no longer.
    """
    gangs = needed(spec_of(), day.most)

    def row(gangs: dict[Role, int]) -> Row:
        prefill, decode = gangs[Role.PREFILL], gangs[Role.DECODE]
        score = scores.of(f"fixed-{prefill}-{decode}", partial(play, day, fixed=gangs))
        return Row(f"fixed, {prefill} + {decode} gangs", "fixed", score)

    while (last := row(gangs)).score.attainment < KEEPS:
        yield last
        gangs = {**gangs, Role.DECODE: gangs[Role.DECODE] + 1}
    yield last
    for role in (Role.DECODE, Role.PREFILL):
        while gangs[role] > 1:
            less = {**gangs, role: gangs[role] - 1}
            last = row(less)
            yield last
            if last.score.attainment < KEEPS:
                break
            gangs = less


def utilisation(day: Day, scores: Scores) -> Iterator[Row]:
    """As other autoscalers do it, at several shares."""
    spec = spec_of()
    for share in SHARES:
        policy = Utilisation(plan_of(spec, spec.models[0]), share)
        score = scores.of(f"utilisation-{share:g}", partial(play, day, policy))
        yield Row(f"by utilisation, {share:.0%}", "utilisation", score)


CONTENDERS = (ours, hindsight, fixed, utilisation)


def line(row: Row) -> str:
    """For a terminal."""
    score = row.score
    return (
        f"{row.name:<34} {score.attainment:8.2%} of {score.requests:,}  "
        f"{score.gpu_hours:9,.1f} GPU-hours ({score.starting_gpu_hours:.0f} starting, "
        f"{score.ending_gpu_hours:.0f} ending)  {score.changes:4} changes"
    )


def targets(rows: list[Row]) -> dict[str, bool]:
    """What is to be reached, and whether it is. The best fixed fleet is the smallest of those that
    keep the SLO over the day.
    """
    (mine,), (best, *_) = of(rows, "ours"), of(rows, "hindsight")
    still, others = best_fixed(rows), of(rows, "utilisation")
    return {
        "the SLO, 99 % of the requests": mine.attainment >= KEEPS,
        "attainment of the best fixed fleet": mine.attainment >= still.attainment,
        "30 % fewer GPU-hours than it": mine.gpu_hours <= 0.7 * still.gpu_hours,
        "within 10 % of hindsight": mine.gpu_hours <= 1.1 * best.gpu_hours,
        "no policy by utilisation is as good on both": not any(
            each.attainment >= mine.attainment and each.gpu_hours <= mine.gpu_hours
            for each in others
        ),
        "one of them is worse on both": any(
            mine.attainment > each.attainment and mine.gpu_hours < each.gpu_hours for each in others
        ),
    }


def of(rows: list[Row], kind: str) -> list[Score]:
    """The scores of a kind, in order."""
    return [row.score for row in rows if row.kind == kind]


def best_fixed(rows: list[Row]) -> Score:
    """The cheapest that keeps the SLO; if none does, the one that is nearest."""
    kept = [score for score in of(rows, "fixed") if score.attainment >= KEEPS]
    if not kept:
        return max(of(rows, "fixed"), key=lambda score: score.attainment)
    return min(kept, key=lambda score: score.gpu_hours)


if __name__ == "__main__":
    sys.exit(main())
