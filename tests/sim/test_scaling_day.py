"""Scaling in the simulator: a short day, deaths, and nodes that run out."""

import math
from dataclasses import replace

import pytest

from orchestrator.core import Role
from orchestrator.scaling import Gangs, Observation, Seen, plan_of
from orchestrator.sim.day import Day
from orchestrator.sim.faults import Kind, SimFault
from orchestrator.sim.hindsight import SLOT_S, Schedule
from orchestrator.sim.scaling_day import needed, play, scenario_of, spec_of
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import World

SHORT = replace(Day(), lasts_s=5_400.0)


def test_hindsight_starts_gangs_in_time_and_keeps_those_it_needs_again_soon() -> None:
    spec = spec_of()
    plan = plan_of(spec, spec.models[0])
    # a minute each: a second decode gang for a minute, and again four and twelve minutes later
    decode = [1, *[1] * 8, 2, 1, 1, 1, 2, *[1] * 11, 2]
    schedule = Schedule(plan, {Role.PREFILL: [1] * len(decode), Role.DECODE: decode})
    seen = Seen(Observation(), {Role.PREFILL: Gangs(1), Role.DECODE: Gangs(1)})
    asked = [schedule.decide(seen, 60.0 * at).gangs()[Role.DECODE] for at in range(len(decode))]
    early = math.ceil(plan.pools[Role.DECODE].start_s / SLOT_S) - 1
    assert asked == [
        *[1] * (9 - early),
        *[2] * (early + 5),
        *[1] * (11 - early),
        *[2] * (early + 1),
    ]


@pytest.mark.timeout(120)
def test_a_day_in_ninety_minutes_is_kept_with_fewer_gpu_hours_than_its_peak_needs() -> None:
    """Sixteen times as steep as a day, and gangs take as long to start as ever."""
    score = play(SHORT)
    peak = needed(spec_of(), SHORT.most)
    assert score.attainment >= 0.97
    assert score.starting_gpu_hours + score.ending_gpu_hours < 0.5 * score.gpu_hours
    assert score.gpu_hours <= 0.8 * 8 * sum(peak.values()) * SHORT.lasts_s / 3600
    assert score.changes <= 40


@pytest.mark.timeout(120)
def test_a_gang_that_dies_is_started_again_and_not_asked_for_twice() -> None:
    day = replace(Day(), lasts_s=1_200.0)
    spec = spec_of()
    start = needed(spec, 0.4)
    faults = (SimFault(300.0, Kind.GANG_DEATH, which=2),)
    world = World(replace(scenario_of(spec, start, 0), faults=faults))
    most = [0]

    def brief(at: float, event: str, fields: dict[str, object]) -> None:
        if event == "scaling" and fields["request_id"] == Role.DECODE.value:
            most[0] = max(most[0], int(str(fields["decision"])))

    world.brief = brief
    world.run(OpenLoop(day.calls(lambda _: 0.4)))
    assert most[0] <= start[Role.DECODE] + 2


@pytest.mark.timeout(120)
def test_where_nodes_run_out_nobody_waits_for_ever() -> None:
    day = replace(Day(), lasts_s=1_500.0)
    spec = spec_of()
    world = World(replace(scenario_of(spec, {Role.PREFILL: 1, Role.DECODE: 2}, 0), gpus_max=40))
    meter = world.run(OpenLoop(day.calls(lambda _: 0.4)))
    assert meter.held_s["prefill"] + meter.held_s["decode"] <= 40 * world.agenda.now
    assert ("scaling", "no_nodes") in meter.decisions
    assert len(world.pools.slots) <= 5 + 1
