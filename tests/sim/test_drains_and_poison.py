"""What a drain and a poisonous request do to a fleet and to everybody else's requests."""

from dataclasses import replace

import pytest
from typing_extensions import override

from orchestrator.core import Role
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.faults import Kind, SimFault
from orchestrator.sim.job import GangModel
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import FleetSpec, HandoffSpec, ModelSpec, PoolSpec, Spec

REQUESTS = 60
DECODE_GANGS = 3


def model(role: Role) -> GangModel:
    return GangModel(
        role=role, ranks=1, passes=Linear(), blocks=4_000, block_tokens=16, start_s=20.0
    )


def scenario(*faults: SimFault, drain_wait_s: float = 2.0) -> Scenario:
    pools = (SimPool(model(Role.PREFILL), 2), SimPool(model(Role.DECODE), DECODE_GANGS))
    return Scenario(
        pools=pools,
        faults=faults,
        gateways=2,
        spec=Spec(
            models=(
                ModelSpec(
                    "",
                    tuple(PoolSpec(pool.model.role, pool.replicas) for pool in pools),
                    "DeepSeek-R1-0528",
                ),
            ),
            handoff=HandoffSpec(resume_wait_s=120.0),
            fleet=FleetSpec(drain_wait_s=drain_wait_s),
        ),
    )


class Counting(World):
    """Notes every gang that is lost, and every outcome."""

    def __init__(self, what: Scenario) -> None:
        self.causes: list[str] = []
        self.outcomes: dict[int, Outcome] = {}
        self.poisons: list[Call] = []
        super().__init__(what)

    @override
    def lost(self, gang: object, cause: str) -> None:
        self.causes.append(cause)
        super().lost(gang, cause)  # type: ignore[arg-type]  # passed on unread

    @override
    def ended(self, call: Call, outcome: Outcome, cause: str) -> None:
        self.outcomes[call.number] = outcome
        if call.poison:
            self.poisons.append(call)
        super().ended(call, outcome, cause)


def played(what: Scenario, output_tokens: int = 1_000) -> Counting:
    world = Counting(what)
    calls = [Call(number, number * 0.5, 400, output_tokens) for number in range(REQUESTS)]
    world.run(OpenLoop(iter(calls)))
    return world


def test_a_drain_moves_long_answers_and_loses_none() -> None:
    drain = SimFault(15.0, Kind.MAINTENANCE, which=3, lasts_s=5.0)
    world = played(scenario(drain))
    assert set(world.outcomes.values()) == {Outcome.FINISHED}
    moves = {reason: n for (event, reason), n in world.meter.decisions.items() if event == "drain"}
    assert sum(moves.values()) > 0


def test_a_drain_with_time_enough_moves_nothing() -> None:
    drain = SimFault(15.0, Kind.MAINTENANCE, which=3, lasts_s=5.0)
    world = played(scenario(drain, drain_wait_s=600.0))
    assert set(world.outcomes.values()) == {Outcome.FINISHED}
    assert not any(event == "drain" for event, _ in world.meter.decisions)


@pytest.mark.parametrize("at_s", [5.0, 12.3, 25.0])
def test_a_poisonous_request_kills_two_gangs_and_nobody_elses_request(at_s: float) -> None:
    world = played(scenario(SimFault(at_s, Kind.POISON)))
    [poison] = world.poisons
    assert poison.outcome is Outcome.FAILED
    assert world.causes.count("the engine died of a request") == HandoffSpec().deaths_max
    del world.outcomes[poison.number]
    assert set(world.outcomes.values()) == {Outcome.FINISHED}


@pytest.mark.parametrize("gateways", [1, 3])
def test_a_prompt_that_killed_engines_is_refused_by_every_gateway(gateways: int) -> None:
    first = SimFault(5.0, Kind.POISON)
    world = Counting(replace(scenario(first), gateways=gateways))
    calls = [Call(number, number * 0.5, 400, 100) for number in range(REQUESTS)]
    number = (1 << 40) + 5_000_000 * 1000  # the poison's own, and so its prompt
    again = [Call(number, 25.0 + at, 700, 200, poison=True) for at in range(3)]
    world.run(OpenLoop(iter(sorted([*calls, *again], key=lambda call: call.at_s))))
    assert [call.outcome for call in again] == [Outcome.REFUSED] * 3
    assert world.causes.count("the engine died of a request") == HandoffSpec().deaths_max


def test_gangs_that_die_by_themselves_make_nobody_a_suspect_for_long() -> None:
    deaths = tuple(
        SimFault(at_s, Kind.GANG_DEATH, which) for which, at_s in enumerate((6.0, 9.0, 12.0, 15.0))
    )
    world = played(scenario(*deaths), output_tokens=200)
    assert set(world.outcomes.values()) == {Outcome.FINISHED}
