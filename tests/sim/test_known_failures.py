"""Failures that other systems are known for, on a simulated fleet: docs/known-failures.md."""

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core import Role
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.faults import Kind, SimFault
from orchestrator.sim.job import GangModel
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import FleetSpec, ModelSpec, PoolSpec, Spec, StepCosts

COSTS = StepCosts(0.02, 1e-4, step_base_s=0.05, step_request_s=1e-3, stall=1.0)
MODEL = GangModel(Role.UNIFIED, 1, Linear(step_s=0.05, request_s=1e-3), 20_000, 64, start_s=20.0)
HOUR_TOKENS = 70_000  # at 51 ms
SPEC = Spec(models=(ModelSpec("", (PoolSpec(Role.UNIFIED, 2),)),), fleet=FleetSpec(drain_s=7_200.0))
TWO = Scenario(pools=(SimPool(MODEL, 2),), spec=SPEC, costs=COSTS)


def thought(number: int = 0, at_s: float = 0.0, tokens: int = HOUR_TOKENS) -> Call:
    return Call(number, at_s, 500, tokens, max_tokens=tokens)


def one_by_one(*calls: Call) -> Iterator[Call]:
    yield from calls


def test_a_scale_down_waits_for_a_thought_of_an_hour() -> None:
    world = World(TWO)
    calls = [thought(0), thought(1)]

    def let_go(now: float) -> None:
        busy = [slot for slot in world.pools.slots if slot.gang is not None and slot.gang.open]
        world.pools.retire(busy[0], now, world.spec.fleet.drain_s)

    world.agenda.at(600.0, let_go)
    world.run(OpenLoop(one_by_one(*calls)))
    assert [call.outcome for call in calls] == [Outcome.FINISHED] * 2
    assert min(call.ended_at for call in calls) > 3_000.0


def test_a_request_is_booked_until_it_ends_however_long_that_takes() -> None:
    world = World(replace(TWO, pools=(SimPool(MODEL, 1),)))
    held: list[int] = []

    def look(now: float) -> None:
        (gateway,) = world.gateways
        held.append(gateway.service.held)
        (seen,) = gateway.service.ranks.view(now).of(Role.UNIFIED)
        held.append(seen.in_flight_requests)

    for minute in (2, 6, 30, 55):
        world.agenda.at(60.0 * minute, look)
    world.run(OpenLoop(one_by_one(thought())))
    assert held == [1] * 8


def test_a_rank_that_hangs_is_found_by_its_lack_of_steps_though_nothing_has_exited() -> None:
    spec = replace(SPEC, fleet=FleetSpec(stuck_after_s=60.0))
    world = World(replace(TWO, spec=spec))
    call = thought(tokens=4_000)

    def freeze(now: float) -> None:
        slot = next(s for s in world.pools.slots if s.gang is not None and s.gang.open)
        assert slot.gang is not None
        slot.gang.hang()

    world.agenda.at(100.0, freeze)
    world.run(OpenLoop(one_by_one(call)))
    assert call.outcome is Outcome.FINISHED
    assert any("stuck" in text for _, text in world.meter.notes)


def test_a_gateway_that_dies_takes_only_its_own_streams_and_the_others_know_every_rank() -> None:
    fault = SimFault(60.0, Kind.GATEWAY_DEATH, 0)
    world = World(replace(TWO, gateways=2, faults=(fault,)))
    early = [thought(at, at_s=0.5 * at, tokens=4_000) for at in range(8)]
    late = [thought(8 + at, at_s=61.0 + at, tokens=200) for at in range(8)]
    world.run(OpenLoop(one_by_one(*early, *late)))
    outcomes = [call.outcome for call in early]
    assert outcomes.count(Outcome.BROKEN) == 4
    assert outcomes.count(Outcome.FINISHED) == 4
    assert [call.outcome for call in late] == [Outcome.FINISHED] * 8


def test_kv_that_never_arrives_does_not_leave_a_request_waiting_nor_its_blocks_held() -> None:
    pools = (
        SimPool(replace(MODEL, role=Role.PREFILL, transfer_base_s=0.01, kv_hold_s=30.0), 1),
        SimPool(replace(MODEL, role=Role.DECODE), 2),
    )
    spec = Spec(models=(ModelSpec("", (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE, 2))),))
    fault = SimFault(1.0, Kind.TRANSFER_FAILURE, lasts_s=600.0, size=1.0)
    world = World(Scenario(pools=pools, spec=spec, costs=COSTS, faults=(fault,)))
    calls = [
        Call(at, 2.0 + at, 40_000, 50, max_tokens=50)  # long: worth a transfer
        for at in range(6)
    ]
    world.run(OpenLoop(one_by_one(*calls)))
    assert world.pools.transfers > 0
    assert [call.outcome for call in calls] == [Outcome.FINISHED] * 6
    for slot in world.pools.slots:
        assert slot.gang is not None
        assert not any(rank.held for rank in slot.gang.ranks)
