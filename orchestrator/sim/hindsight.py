"""What a day would have cost whoever had known it: the least GPU-hours that keep the SLO.

Whole gangs, starts and drains paid for, played on the same simulator. `foreseen` knows every
request beforehand; `rate_known` how many are to be expected, as a perfect forecast would, and not
which.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.scaling import Decision, Plan, Reason, Seen, Target, plan_of
from orchestrator.scaling.capacity import batch_of
from orchestrator.sim.day import Day
from orchestrator.sim.scaling_day import Score, mean_request, needed, play, spec_of
from orchestrator.spec import Spec

SLOT_S = 60.0  # what hindsight plans in

Needs = Mapping[Role, Sequence[int]]  # gangs in each slot of the day


def needs_of(day: Day, spec: Spec, fill: float = 1.0) -> dict[Role, list[int]]:
    """What the day takes. For decode the gangs that hold the requests that came, each for as long
    as the SLO's pace makes it stay, at this share of the batch that keeps the SLO; for prefill
    those that the expected rate needs.
    """
    plan = plan_of(spec, spec.models[0])
    slots = math.ceil(day.lasts_s / SLOT_S)
    held = [0.0] * slots
    for call in day.calls():
        begins = call.at_s
        ends = begins + call.output_tokens * plan.slo.tpot_s
        for at in range(int(begins / SLOT_S), min(int(ends / SLOT_S), slots - 1) + 1):
            held[at] += (min(ends, (at + 1) * SLOT_S) - max(begins, at * SLOT_S)) / SLOT_S
    decode = plan.pools[Role.DECODE]
    room = fill * decode.ranks * batch_of(decode, plan.slo, mean_request(plan))
    return {
        Role.PREFILL: [needed(spec, day.per_s(at * SLOT_S))[Role.PREFILL] for at in range(slots)],
        Role.DECODE: [max(1, math.ceil(each / room)) for each in held],
    }


class Schedule:
    """Gangs that are ready when their slot begins, and kept over gaps shorter than a start."""

    def __init__(self, plan: Plan, needs: Needs) -> None:
        self._plan = plan
        self._needs = needs

    def decide(self, seen: Seen, now: float) -> Decision:
        """The targets of all pools."""
        targets = []
        for role, facts in sorted(self._plan.pools.items()):
            needs = self._needs[role]
            first = min(int(now / SLOT_S), len(needs) - 1)
            last = int((now + facts.start_s + self._plan.spec.period_s) / SLOT_S)
            gangs = max(needs[first : last + 1])
            reason = Reason.STEADY if gangs == seen.pools[role].asked else Reason.CALENDAR
            targets.append(Target(role, gangs, reason, needs[first]))
        return Decision(tuple(targets), seen.load.requests_per_s, slo_kept=True)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The cheapest schedule that was found, and the share of full batches that it plans with."""

    score: Score
    fill: float


# Of full batches: a smaller one is faster, so that more fit.
FILLS = (1.0, 1.0125, 1.025, 1.0375, 1.05, 1.075, 1.1)


def foreseen(
    attainment: float, score_of: Callable[[float], Score], fills: Sequence[float] = FILLS
) -> Foreseen:
    """The fullest of the schedules that attains so much when it is played, by `score_of` its fill;
    the first if none does. An upper bound of the optimum: these schedules differ in one number.
    """
    best: Foreseen | None = None
    for fill in fills:
        score = score_of(fill)
        if best is not None and score.attainment < attainment:
            break
        best = Foreseen(score, fill)
    assert best is not None
    return best


def filled(day: Day, fill: float, spec: Spec | None = None) -> Score:
    """The schedule for the requests that came which fills batches so much."""
    spec = spec or spec_of()
    return _follow(day, spec, needs_of(day, spec, fill))


def rate_known(day: Day, spec: Spec | None = None) -> Score:
    """The schedule of a perfect forecast: the gangs that the policy's own arithmetic asks for at
    the rate that is to be expected.
    """
    spec = spec or spec_of()
    slots = range(math.ceil(day.lasts_s / SLOT_S))
    gangs = [needed(spec, day.per_s(at * SLOT_S)) for at in slots]
    return _follow(day, spec, {role: [each[role] for each in gangs] for role in gangs[0]})


def _follow(day: Day, spec: Spec, needs: Needs) -> Score:
    return play(day, Schedule(plan_of(spec, spec.models[0]), needs), spec=spec)
