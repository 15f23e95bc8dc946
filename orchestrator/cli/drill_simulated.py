"""A drill in virtual time."""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.cli.drill_html import Told
from orchestrator.cli.plan_inputs import read_workload
from orchestrator.cli.simulate_run import bounds_of, call_of, read_plan
from orchestrator.core import SpecError
from orchestrator.fleet.drill import Drill, Limits, judge
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.drill import Times, run_drill
from orchestrator.sim.faults import DRAIN_S
from orchestrator.sim.planned import Planned
from orchestrator.sim.world import Scenario
from orchestrator.workload import drawn_requests

_THINKING = 0.6  # of outputs
_LATE = 1.5  # times the predicted start, within which a gang must be back
_LATE_S = 60.0


def simulated(options: argparse.Namespace) -> Told:
    """Plays the drill on the plan's fleet. Raises R1ServeError if it has no target."""
    plan = read_plan(options.simulate, options.seed)
    times = Times()
    for name in ("before", "lasts", "after"):
        if (given := getattr(options, name)) is not None:
            times = replace(times, **{f"{name}_s": given})
    start_s = max(pool.model.start_s for pool in plan.pools)
    drain_s = DRAIN_S if options.name is Drill.DRAIN_UNDER_LOAD else 0.0
    limits = Limits(options.back or _LATE * start_s + _LATE_S + times.lasts_s + drain_s)
    scenario = Scenario(
        pools=plan.pools,
        seed=options.seed,
        gateways=options.gateways,
        spec=plan.spec,
        model=plan.spec.models[0].name,
        max_model_len=plan.spec.models[0].max_model_len,
        overhead_s=plan.overhead_s,
        bounds={"": bounds_of(options.slo) if options.slo else plan.bounds},
    )
    world = run_drill(scenario, options.name, _calls(options, plan), times, limits)
    seen = world.seen()
    return Told(
        options.name,
        f"{options.simulate.stem}, simulated",
        seen.struck,
        seen,
        judge(limits, seen),
        tuple(world.meter.notes),
        tuple(world.causes.most_common(12)),
        _lines(world.meter.line.span_s, world.meter.line.sums),
        world.struck_at,
        world.back_at,
    )


def _calls(options: argparse.Namespace, plan: Planned) -> Iterator[Call]:
    workload = read_workload(options.workload or plan.workload or "chat")
    own = workload.arrivals.requests_per_s if workload.arrivals else None
    rate = options.rate or own or plan.requests_per_s
    if rate is None:
        raise SpecError(
            "neither the plan nor the workload says how many requests come",
            "give --rate REQUESTS_PER_S",
        )
    for number, request in enumerate(drawn_requests(workload, Chance(options.seed), rate)):
        yield call_of(number, request, _THINKING)


def _lines(span_s: float, sums: dict[str, list[float]]) -> dict[str, list[tuple[float, float]]]:
    """What came, what ended and what ended within the SLO, requests a second."""
    return {
        name: [((at + 0.5) * span_s, value / span_s) for at, value in enumerate(sums.get(key, []))]
        for name, key in (("arrivals", "begun"), ("ends", "ended"), ("within the SLO", "kept"))
    }
