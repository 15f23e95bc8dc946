"""Every drill on a simulated fleet: one that is built for it passes, a sabotaged one fails."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.core import R1ServeError, Role
from orchestrator.fleet.drill import Drill, Judgement, Limits, Verdict, judge
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.drill import Drilled, Times, run_drill
from orchestrator.sim.job import GangModel
from orchestrator.sim.meter import Bounds
from orchestrator.sim.pools import SimPool
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario
from orchestrator.spec import (
    AdmissionSpec,
    GatewaySpec,
    HandoffSpec,
    ModelSpec,
    PoolSpec,
    Spec,
    StepCosts,
)

COSTS = StepCosts(0.02, 1e-4, step_base_s=0.02, step_request_s=1e-3, stall=1.0)
PASSES = Linear(base_s=0.02, token_s=1e-4, step_s=0.02, request_s=1e-3)
PREFILL = GangModel(Role.PREFILL, 1, PASSES, 4_000, 16, start_s=15.0, transfer_base_s=0.005)
DECODE = replace(PREFILL, role=Role.DECODE, sequences_max=24)
POOLS = (SimPool(PREFILL, 2), SimPool(DECODE, 3))
TIMES = Times(warm_s=15.0, before_s=30.0, lasts_s=20.0, after_s=40.0)
LIMITS = Limits(back_s=90.0)
PER_S = 8.0
SPEC = Spec(
    models=(ModelSpec("", (PoolSpec(Role.PREFILL, 2), PoolSpec(Role.DECODE, 3))),),
    admission=AdmissionSpec(queue_requests_max=60, wait_s=4.0, rank_requests_max=24),
    handoff=HandoffSpec(attempts_max=10),
    gateway=GatewaySpec(replicas=2),
)
SCENARIO = Scenario(
    pools=POOLS,
    gateways=2,
    spec=SPEC,
    costs=COSTS,
    bounds={"": Bounds(ttft_s=8.0, tpot_s=0.08)},
)


def calls(seed: int = 1) -> Iterator[Call]:
    chance = Chance(seed)
    arrivals, lengths = chance("arrivals"), chance("lengths")
    at, number = 0.0, 0
    while True:
        at += arrivals.expovariate(PER_S)
        yield Call(number, at, 300, 20 + lengths.randrange(160), max_tokens=400)
        number += 1


def hold(
    drill: Drill, scenario: Scenario = SCENARIO, limits: Limits = LIMITS
) -> tuple[Drilled, Judgement]:
    world = run_drill(scenario, drill, calls(), TIMES, limits)
    return world, judge(limits, world.seen())


@pytest.mark.parametrize("drill", [drill for drill in Drill if drill is not Drill.POISON])
def test_a_fleet_that_is_built_for_it_passes(drill: Drill) -> None:
    world, judgement = hold(drill)
    assert judgement.verdict is Verdict.PASSED, judgement.findings
    assert world.meter.last_end_at <= TIMES.strike_s + LIMITS.back_s + TIMES.after_s + 60.0


@pytest.mark.parametrize("gateways", [1, 2, 3])
def test_a_request_that_kills_engines_takes_no_other_with_it(gateways: int) -> None:
    spec = replace(SPEC, gateway=GatewaySpec(replicas=gateways))
    world, judgement = hold(Drill.POISON, replace(SCENARIO, spec=spec, gateways=gateways))
    seen = world.seen()
    assert judgement.verdict is Verdict.PASSED, judgement.findings
    assert seen.poisoned == 1
    assert seen.deaths == spec.handoff.deaths_max


def test_a_fleet_that_tries_once_only_fails_when_a_gang_is_killed() -> None:
    spec = replace(SPEC, handoff=HandoffSpec(attempts_max=1))
    world, judgement = hold(Drill.KILL_GANG, replace(SCENARIO, spec=spec))
    assert judgement.verdict is Verdict.FAILED
    assert any(cause.startswith("failed") for cause in world.causes)


def test_a_fleet_whose_queue_has_no_bound_of_time_does_not_pass_an_overload() -> None:
    patient = replace(SPEC, admission=AdmissionSpec(queue_requests_max=4_000, rank_requests_max=24))
    _, judgement = hold(Drill.OVERLOAD, replace(SCENARIO, spec=patient))
    assert judgement.verdict in (Verdict.FAILED, Verdict.ABORTED)


def test_gangs_that_start_too_slowly_are_not_back_in_time() -> None:
    slow = (SimPool(PREFILL, 2), SimPool(replace(DECODE, start_s=300.0), 3))
    world, judgement = hold(Drill.KILL_RANK, replace(SCENARIO, pools=slow))
    assert judgement.verdict is Verdict.FAILED
    assert world.seen().back_s is None
    assert world.meter.last_end_at <= TIMES.strike_s + LIMITS.back_s + 60.0


def test_a_drill_is_aborted_when_the_slo_burns_and_sends_nothing_more() -> None:
    strict = replace(SCENARIO, bounds={"": Bounds(ttft_s=8.0, tpot_s=0.031)})
    world, judgement = hold(Drill.SLOW_RANK, strict, replace(LIMITS, burn=0.1))
    assert judgement.verdict is Verdict.ABORTED
    assert world.meter.last_end_at < TIMES.strike_s + TIMES.lasts_s + 30.0


@pytest.mark.parametrize(
    ("drill", "scenario", "says"),
    [
        (Drill.CUT_TRANSFER, replace(SCENARIO, pools=(SimPool(DECODE, 3),)), "moves no KV"),
        (Drill.DROP_KV_EVENTS, replace(SCENARIO, kv_events=False), "publish none"),
        (Drill.KILL_GATEWAY, replace(SCENARIO, gateways=1), "only gateway"),
    ],
)
def test_a_drill_without_a_target_says_so_and_what_to_do(
    drill: Drill, scenario: Scenario, says: str
) -> None:
    with pytest.raises(R1ServeError, match=says) as error:
        hold(drill, scenario)
    assert "has no target" in error.value.cause
    assert error.value.cure
