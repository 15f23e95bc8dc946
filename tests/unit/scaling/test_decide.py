"""Scaling's decisions, one period after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.scaling import (
    Decision,
    Gangs,
    Observation,
    Plan,
    PoolFacts,
    Reason,
    Seen,
    State,
    decide,
)
from orchestrator.spec import CalendarEntry, Day, PoolScaling, ScalingSpec, StepCosts

P, D = Role.PREFILL, Role.DECODE
COSTS = StepCosts(0.0, 1e-3, step_base_s=0.02, step_request_s=1e-3)
SPEC = ScalingSpec(10.0, 0.05, (PoolScaling(P, 20), PoolScaling(D, 20)))
START_S = 260.0


def plan(spec: ScalingSpec = SPEC) -> Plan:
    return Plan(spec, {role: PoolFacts(role, 8, 1, COSTS, START_S, 256) for role in (P, D)})


def load(per_s: float, **known: float) -> Observation:
    # 2,000 steps of 50 ms are 100 s in decode, and a gang holds 30
    means = {"prefill_s": 1.0, "prefill_s2": 1.0, "prompt_tokens": 1e3, "output_tokens": 2_001.0}
    return Observation(requests_per_s=per_s, running=per_s * 60, **(means | known))


@dataclass
class Fleet:
    """Does at once what is decided; gangs start in `START_S`."""

    plan: Plan
    gangs: dict[Role, int]
    nodes: int = 1_000
    state: State = field(default_factory=State)
    now: float = 0.0
    ready_at: dict[Role, list[float]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ready_at = {role: [0.0] * count for role, count in self.gangs.items()}

    def seen(self, observed: Observation) -> Seen:
        free = self.nodes
        pools = {}
        for role, instants in sorted(self.ready_at.items()):
            placed = instants[: max(free, 0)]
            free -= len(placed)
            ready = sum(1 for at in placed if at <= self.now)
            pools[role] = Gangs(ready, len(placed) - ready, len(instants) - len(placed))
        return Seen(observed, pools, week_s=self.now)

    def step(self, observed: Observation) -> Decision:
        decision, self.state = decide(self.plan, self.state, self.seen(observed), self.now)
        for target in decision.targets:
            instants = self.ready_at[target.role]
            instants += [self.now + START_S] * (target.gangs - len(instants))
            del instants[target.gangs :]
        self.decisions.append(decision)
        self.now += self.plan.spec.period_s
        return decision

    def run(self, lasts_s: float, rate: Callable[[float], float]) -> None:
        until = self.now + lasts_s
        while self.now < until:
            self.step(load(rate(self.now)))

    def targets(self, role: Role) -> list[int]:
        return [decision.gangs()[role] for decision in self.decisions]

    def reasons(self, role: Role) -> list[Reason]:
        return [t.reason for d in self.decisions for t in d.targets if t.role is role]


def changes(targets: Sequence[int]) -> int:
    return sum(1 for a, b in pairwise(targets) if a != b)


def test_a_steady_load_gets_one_fleet_and_keeps_it() -> None:
    fleet = Fleet(plan(), {P: 1, D: 1})
    fleet.run(7_200, lambda _: 3.0)
    assert changes(fleet.targets(D)[30:]) == 0
    assert fleet.targets(D)[-1] == 11  # see test_capacity
    assert fleet.reasons(D)[-1] is Reason.STEADY


def test_gangs_that_are_starting_are_not_asked_for_twice() -> None:
    fleet = Fleet(plan(), {P: 4, D: 1})
    fleet.run(START_S, lambda _: 3.0)
    assert max(fleet.targets(D)) <= 14


def test_a_rising_load_is_met_before_it_is_there() -> None:
    def rate(now: float) -> float:
        return 1.0 + now / 3_600

    fleet = Fleet(plan(), {P: 3, D: 6})
    fleet.run(7_200, rate)
    assert Reason.FORECAST in fleet.reasons(D)
    for at, decision in enumerate(fleet.decisions[180:], 180):
        ready = sum(1 for t in fleet.ready_at[D] if t <= at * 10.0 + START_S)
        assert ready * 30 >= rate(at * 10.0 + START_S) * 100
        assert decision.per_s > 0


def test_less_is_let_go_after_the_dwell_and_not_before() -> None:
    fleet = Fleet(plan(), {P: 4, D: 13})
    fleet.run(3_600, lambda _: 3.0)
    before = len(fleet.decisions)
    fleet.run(600, lambda _: 0.5)
    down = next(i for i, t in enumerate(fleet.targets(D)) if i >= before and t < 11)
    assert (down - before) * 10.0 >= 240
    assert Reason.DWELL in fleet.reasons(D)[before:down]
    assert fleet.reasons(D)[down] is Reason.QUIET


def test_load_that_swings_faster_than_the_dwell_moves_next_to_nothing() -> None:
    fleet = Fleet(plan(), {P: 1, D: 1})
    fleet.run(14_400, lambda now: 3.0 if now % 400 < 200 else 0.3)
    assert changes(fleet.targets(D)[720:]) <= 3
    assert changes(fleet.targets(P)[720:]) <= 4, "sorry twice, and patient then"


def test_gangs_that_are_missed_again_and_again_are_let_go_later() -> None:
    fleet = Fleet(plan(), {P: 1, D: 4})
    running = 100.0
    while fleet.now < 4 * 3_600:
        per_s = 3.0 if fleet.now % 1_000 < 500 else 1.0
        running += (per_s - running / 100) * 10.0  # each lasts 100 s
        fleet.step(replace(load(per_s), running=running))
    targets = fleet.targets(D)
    assert changes(targets[:360]) > 20, "in the first hour it is followed"
    assert changes(targets[360:]) <= 12, "in the three behind it is not"
    assert fleet.state.pools[D].patience == 4.0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=20, max_size=20), st.sampled_from((50, 130, 400)))
def test_no_load_makes_a_pool_go_down_twice_within_a_dwell_of_going_up(
    rates: list[int], each_s: int
) -> None:
    fleet = Fleet(plan(), {P: 1, D: 1})
    fleet.run(20 * each_s, lambda now: rates[int(now / each_s)])
    for role in (P, D):
        up_at = float("-inf")
        targets = fleet.targets(role)
        for at, (was, target) in enumerate(pairwise(targets)):
            if target > was:
                up_at = at * 10.0
            if target < was:
                assert at * 10.0 - up_at >= START_S, (role, at, targets)


def test_floors_and_ceilings_hold_and_are_given_as_reasons() -> None:
    spec = replace(SPEC, pools=(PoolScaling(P, 2, 2), PoolScaling(D, 5, 3)))
    fleet = Fleet(plan(spec), {P: 2, D: 2})
    fleet.step(load(0.1))
    assert fleet.targets(D)[-1] == 3
    assert fleet.reasons(D)[-1] is Reason.FLOOR
    fleet.run(1_200, lambda _: 6.0)
    assert fleet.targets(D)[-1] == 5
    assert fleet.reasons(D)[-1] is Reason.CEILING


def test_gpus_are_split_so_that_no_pool_has_what_it_cannot_use() -> None:
    fleet = Fleet(plan(replace(SPEC, gpus_max=80)), {P: 1, D: 1})
    fleet.run(1_200, lambda _: 6.0)
    found = fleet.decisions[-1].gangs()
    assert sum(found.values()) <= 10
    assert found[P] >= 2
    assert found[D] >= 6


def test_gangs_of_the_calendar_are_ready_at_its_hour() -> None:
    entry = CalendarEntry(D, 5, from_h=1.0, until_h=2.0, days=(Day.MON,))
    fleet = Fleet(plan(replace(SPEC, calendar=(entry,))), {P: 1, D: 1})
    fleet.run(9_000, lambda _: 0.05)
    up = next(at for at, target in enumerate(fleet.targets(D)) if target == 5)
    assert 3_600 - START_S - 10 <= up * 10.0 <= 3_600 - START_S + 10
    assert fleet.reasons(D)[up] is Reason.CALENDAR
    assert fleet.targets(D)[-1] == 1  # an hour and the dwell later


def test_a_week_has_no_seam() -> None:
    entry = CalendarEntry(D, 4, from_h=0.0, until_h=1.0, days=(Day.MON,))
    late = plan(replace(SPEC, calendar=(entry,)))
    seen = Seen(load(0.05), {P: Gangs(1), D: Gangs(1)}, week_s=7 * 86_400 - 100.0)
    decision, _ = decide(late, State(), seen, 0.0)
    assert decision.gangs()[D] == 4


def idle_plan() -> Plan:
    return plan(replace(SPEC, pools=(PoolScaling(P, 9, 0), PoolScaling(D, 9, 0)), idle_s=600.0))


def test_an_idle_model_goes_and_comes_back_with_a_request() -> None:
    fleet = Fleet(idle_plan(), {P: 1, D: 1})
    fleet.run(300, lambda _: 0.2)
    fleet.run(700, lambda _: 0.0)
    assert fleet.decisions[-1].gangs() == {P: 0, D: 0}
    assert fleet.reasons(D)[-10:].count(Reason.STEADY) > 0
    assert Reason.IDLE in fleet.reasons(D)
    decision = fleet.step(replace(load(0.02), running=0, waiting=1))
    assert decision.gangs() == {P: 1, D: 1}
    assert decision.targets[0].reason is Reason.WOKEN


def test_an_idle_model_keeps_its_gangs_until_the_time_is_over() -> None:
    fleet = Fleet(idle_plan(), {P: 1, D: 1})
    fleet.run(590, lambda _: 0.0)
    assert set(fleet.targets(D)) == {1}


def test_a_floor_above_0_keeps_an_idle_model() -> None:
    fleet = Fleet(plan(replace(SPEC, idle_s=60.0)), {P: 1, D: 1})
    fleet.run(3_600, lambda _: 0.0)
    assert fleet.decisions[-1].gangs() == {P: 1, D: 1}


def test_where_there_are_no_nodes_the_pools_share_what_there_is() -> None:
    fleet = Fleet(plan(), {P: 4, D: 4}, nodes=8)
    fleet.run(240, lambda _: 6.0)
    assert fleet.targets(D)[-1] > 8  # asked for, and pending
    fleet.run(400, lambda _: 6.0)
    found = fleet.decisions[-1].gangs()
    assert sum(found.values()) <= 8
    assert found[D] > 4  # a prefill gang has made room: nobody decoded what it would prefill
    assert Reason.NO_NODES in fleet.reasons(D) + fleet.reasons(P)


def test_what_is_in_decode_is_held_though_no_request_has_ended_yet() -> None:
    fleet = Fleet(plan(), {P: 1, D: 6})
    for _ in range(100):
        fleet.step(load(0.5, output_tokens=0.0))
    assert set(fleet.targets(D)) == {6}


def test_a_backlog_counts_though_the_rate_has_fallen() -> None:
    fleet = Fleet(plan(), {P: 1, D: 2})
    decision = fleet.step(replace(load(0.1), running=60, waiting=200))
    target = next(t for t in decision.targets if t.role is D)
    assert target.gangs == 9
    assert target.reason is Reason.HELD


def test_the_same_observations_give_the_same_decisions() -> None:
    one, two = (Fleet(plan(), {P: 1, D: 1}) for _ in range(2))
    for fleet in (one, two):
        fleet.run(3_600, lambda now: 1 + (now % 700) / 200)
    assert one.decisions == two.decisions


def test_a_load_that_jumps_more_often_than_the_slo_allows_gets_headroom_and_loses_it_again() -> (
    None
):
    def jumps(now: float) -> float:
        return 6.0 if now % 3_600 < 900 else 3.0

    fleet = Fleet(plan(), {P: 8, D: 11})
    fleet.run(4 * 3_600, jumps)
    learnt = fleet.state.headroom
    assert 0.02 < learnt <= 0.5
    fleet.run(4 * 3_600, lambda _: 3.0)
    assert fleet.state.headroom < learnt


def test_nodes_that_are_missing_teach_no_headroom() -> None:
    fleet = Fleet(plan(), {P: 4, D: 4}, nodes=8)
    fleet.run(2 * 3_600, lambda _: 6.0)
    assert fleet.state.headroom == 0.0


def test_gangs_that_wait_for_nodes_do_not_hold_up_a_scale_down() -> None:
    fleet = Fleet(plan(), {P: 4, D: 4}, nodes=8)
    fleet.run(200, lambda _: 6.0)
    assert fleet.targets(D)[-1] > 8  # asked for, and pending
    fleet.run(2_400, lambda _: 0.5)
    assert fleet.targets(D)[-1] <= 3


def test_a_gateway_that_has_measured_nothing_yet_stops_no_decision() -> None:
    fleet = Fleet(plan(), {P: 4, D: 11})
    fleet.run(1_200, lambda _: 3.0)
    nothing = {"prefill_s": 0.0, "prefill_s2": 0.0, "prompt_tokens": 0.0, "output_tokens": 0.0}
    for _ in range(60):
        fleet.step(load(6.0, **nothing))
    assert fleet.targets(D)[-1] > 14  # by the lengths that were known before
    assert fleet.targets(P)[-1] > 4
