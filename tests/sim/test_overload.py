"""Twice as many requests as the fleet can serve, by the gateway's own admission."""

from collections import Counter
from collections.abc import Iterator

from typing_extensions import override

from orchestrator.core import Role
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.chance import Chance
from orchestrator.sim.job import GangModel
from orchestrator.sim.meter import Bounds
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import AdmissionSpec, GatewaySpec, ModelSpec, PoolSpec, Spec, StepCosts

PASSES = Linear(base_s=0.01, token_s=1e-5, step_s=0.02, request_s=1e-3)
COSTS = StepCosts(0.01, 1e-5, step_base_s=0.02, step_request_s=1e-3, stall=1.0)
SLO = Bounds(ttft_s=6.0, tpot_s=0.05)
ROOM = 16  # requests of a rank: steps of 36 ms
CAPACITY = ROOM / (100 * 0.036)  # requests of 100 tokens, a second
WAITING = AdmissionSpec(queue_requests_max=200, wait_s=4.0, rank_requests_max=ROOM)


class Watched(World):
    """Notes the most that ever waited, and what became of each tenant's requests."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.most_waiting = 0
        self.finished: Counter[str] = Counter()

    @override
    def send(self, call: Call) -> None:
        super().send(call)
        waiting = sum(gateway.service.observe().waiting for gateway in self.gateways)
        self.most_waiting = max(self.most_waiting, int(waiting))

    @override
    def ended(self, call: Call, outcome: Outcome, cause: str) -> None:
        super().ended(call, outcome, cause)
        self.finished[call.tenant] += outcome is Outcome.FINISHED


def run(
    load: float,
    lasts_s: float = 90.0,
    admission: AdmissionSpec = WAITING,
    shares: dict[str, float] | None = None,
) -> Watched:
    """`load` times what one gang can serve, of tenants with these shares of it."""
    model = GangModel(Role.UNIFIED, 1, PASSES, 20_000, 16, sequences_max=ROOM)
    spec = Spec(
        models=(ModelSpec("", (PoolSpec(Role.UNIFIED),)),),
        admission=admission,
        gateway=GatewaySpec(replicas=1),
    )
    world = Watched(
        Scenario(
            pools=(SimPool(model),),
            kv_events=False,
            spec=spec,
            costs=COSTS,
            bounds={"": SLO},
        )
    )
    world.run(OpenLoop(calls(load * CAPACITY, lasts_s, shares or {"": 1.0})))
    return world


def calls(per_s: float, lasts_s: float, shares: dict[str, float]) -> Iterator[Call]:
    chance = Chance(3)
    arrivals, who = chance("arrivals"), chance("tenants")
    at, number = 0.0, 0
    while (at := at + arrivals.expovariate(per_s)) < lasts_s:
        tenant = who.choices(list(shares), list(shares.values()))[0]
        yield Call(number, at, 20, 100, max_tokens=100, tenant=tenant)
        number += 1


def goodput(world: Watched) -> float:
    """Requests a second within the SLO."""
    scores = world.meter.classes.values()
    return sum(score.kept for score in scores) / world.meter.last_end_at


def test_twice_the_capacity_keeps_nine_tenths_of_the_best_goodput() -> None:
    best = max(goodput(run(load)) for load in (0.8, 0.9, 1.0))
    assert goodput(run(2.0)) >= 0.9 * best


def test_without_a_bound_of_the_wait_everybody_would_be_late() -> None:
    patient = AdmissionSpec(queue_requests_max=2_000, rank_requests_max=ROOM)
    assert goodput(run(2.0, admission=patient)) < 0.5 * goodput(run(2.0))


def test_what_waits_does_not_grow_with_the_time_that_overload_lasts() -> None:
    short, long = run(2.0, 45.0), run(2.0, 135.0)
    assert long.most_waiting <= 1.5 * short.most_waiting
    assert long.most_waiting <= 3 * WAITING.wait_s * CAPACITY  # type: ignore[operator]  # it is set


def test_equal_tenants_are_served_equally_and_a_greedy_one_takes_nothing_from_a_modest_one() -> (
    None
):
    equal = run(2.0, shares={"a": 1, "b": 1, "c": 1, "d": 1}).finished
    total = sum(equal.values())
    assert total**2 / (4 * sum(each**2 for each in equal.values())) >= 0.95  # Jain's index
    world = run(2.0, shares={"greedy": 9.0, "modest": 1.0})
    asked = 0.1 * 2.0 * CAPACITY * 90.0
    assert world.finished["modest"] >= 0.8 * asked  # of independent arrivals, about 80
