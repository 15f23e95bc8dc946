"""A drill on a simulated fleet: the blow is one of `faults`, the requests are a steady stream."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from typing_extensions import override

from orchestrator.core import R1ServeError, Role
from orchestrator.fleet import drill as drills
from orchestrator.fleet.drill import Drill, Limits, Phase, Seen, Tally
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.faults import Kind, SimFault
from orchestrator.sim.gang import Gang
from orchestrator.sim.meter import Bounds
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World

_KINDS: Mapping[Drill, Kind] = {
    Drill.KILL_RANK: Kind.RANK_DEATH,
    Drill.KILL_GANG: Kind.GANG_DEATH,
    Drill.KILL_GATEWAY: Kind.GATEWAY_DEATH,
    Drill.SLOW_RANK: Kind.SLOW_RANK,
    Drill.DROP_KV_EVENTS: Kind.EVENT_LOSS,
    Drill.CUT_TRANSFER: Kind.TRANSFER_FAILURE,
    Drill.HEAD_RESTART: Kind.CONTROLLER_RESTART,
    Drill.DRAIN_UNDER_LOAD: Kind.MAINTENANCE,
    Drill.POISON: Kind.POISON,
}
_LOOK_S = 1.0
_LASTS = frozenset(
    {Drill.SLOW_RANK, Drill.DROP_KV_EVENTS, Drill.CUT_TRANSFER, Drill.HEAD_RESTART, Drill.OVERLOAD}
)


@dataclass(frozen=True, slots=True)
class Times:
    """How long each phase lasts, in seconds: a blow that heals lasts `lasts_s`."""

    warm_s: float = 60.0  # until the fleet is as full as it will be: not looked at
    before_s: float = 120.0
    lasts_s: float = 60.0
    after_s: float = 120.0

    @property
    def strike_s(self) -> float:
        """When the blow falls."""
        return self.warm_s + self.before_s


class Drilled(World):
    """A world that is struck once, and watches what becomes of its clients."""

    def __init__(self, scenario: Scenario, drill: Drill, times: Times, limits: Limits) -> None:
        super().__init__(scenario)
        self.drill = drill
        self.times = times
        self.limits = limits
        self.phases = {phase: Tally() for phase in Phase}
        self.causes: Counter[str] = Counter()
        self.struck = ""
        self.struck_at = math.inf
        self.back_at: float | None = None
        self.aborted = False
        self.over = False
        self._poisoned = self._deaths = self._held = 0
        self._last: deque[bool] = deque(maxlen=2 * limits.burn_requests)
        self._healed_at = 0.0
        self.agenda.at(times.strike_s, self._strike)

    def seen(self) -> Seen:
        """What it has shown."""
        back_s = None if self.back_at is None else self.back_at - self.struck_at
        return Seen(
            self.drill,
            self.struck,
            self.phases,
            back_s,
            self._poisoned,
            self._deaths,
            self.aborted,
            self._held,
        )

    @override
    def ended(self, call: Call, outcome: Outcome, cause: str) -> None:
        super().ended(call, outcome, cause)
        if self.agenda.now < self.times.warm_s and outcome is Outcome.FINISHED:
            return
        tally = self.phases[self._phase(call)]
        kept = self._within(call)
        match outcome:
            case Outcome.FINISHED:
                tally.kept += kept
                tally.late += not kept
            case Outcome.SHED:
                tally.shed += 1
            case Outcome.BROKEN:
                tally.broken += 1
            case Outcome.FAILED | Outcome.REFUSED:
                tally.failed += 1
                self._poisoned += call.poison
        if outcome is not Outcome.FINISHED:
            self.causes[f"{outcome}: {cause}"] += 1
        if outcome in (Outcome.SHED, Outcome.BROKEN) or call.poison:
            return  # as it has to be
        self._last.append(kept)
        if self.struck and drills.burns(self.limits, self._last):
            self.aborted = self.over = True

    @override
    def lost(self, gang: Gang, cause: str) -> None:
        super().lost(gang, cause)
        self._deaths += self.agenda.now >= self.struck_at

    def _within(self, call: Call) -> bool:
        if call.outcome is not Outcome.FINISHED:
            return False
        bounds = self.scenario.bounds.get("", Bounds())
        tpot_s = 0.0
        if call.emitted > 1:
            tpot_s = (call.ended_at - call.first_at) / (call.emitted - 1)
        return bounds.keeps(call.first_at - call.at_s, tpot_s)

    def _phase(self, call: Call) -> Phase:
        """Before: it ended then. After: it began then. What may have been touched is between."""
        if self.agenda.now < self.struck_at:
            return Phase.BEFORE
        after = self.back_at is not None and call.at_s >= self.back_at
        return Phase.AFTER if after else Phase.DURING

    def _strike(self, now: float) -> None:
        self.phases[Phase.BEFORE].lasts_s = self.times.before_s
        self.struck_at = now
        self._healed_at = now + (self.times.lasts_s if self.drill in _LASTS else 0.0)
        self.struck = self._blow(now)
        self.agenda.at(now + _LOOK_S, self._look)

    def _blow(self, now: float) -> str:
        if self.drill is Drill.OVERLOAD:
            return "every request comes several times as fast"
        victim = "the fleet"
        role = self.decoder
        which = 0
        if self.drill in (
            Drill.KILL_RANK,
            Drill.KILL_GANG,
            Drill.SLOW_RANK,
            Drill.DRAIN_UNDER_LOAD,
        ):
            living = [slot for slot in self.pools.slots if slot.gang and slot.model.role is role]
            busiest = max(living, key=lambda slot: slot.gang.open if slot.gang else 0)
            which, victim = living.index(busiest), f"{busiest.name}, the busiest {role} gang"
        if self.drill is Drill.KILL_GATEWAY:
            gateway = max(self.gateways, key=lambda each: len(each.passages))
            which, victim = self.gateways.index(gateway), gateway.gateway_id
            self._held = len(gateway.passages)
        kind = _KINDS[self.drill]
        size = 0.5 if kind is Kind.SLOW_RANK else 1.0
        SimFault(now, kind, which, self.times.lasts_s, size, role).strike(self, now)
        return victim

    @property
    def decoder(self) -> Role:
        """The role of the pool that is struck."""
        return Role.UNIFIED if Role.UNIFIED in self.pools.models else Role.DECODE

    def _look(self, now: float) -> None:
        """Once a second: whether all is back, and whether it has been for long enough."""
        whole = all(slot.ready and slot.listed for slot in self.pools.slots)
        whole = whole and len(self.gateways) == self.scenario.gateways and now >= self._healed_at
        if self.back_at is None and whole and now > self.struck_at + 3 * _LOOK_S:
            self.back_at = now
            self.phases[Phase.DURING].lasts_s = now - self.struck_at
        if self.back_at is not None and now >= self.back_at + self.times.after_s:
            self.phases[Phase.AFTER].lasts_s = now - self.back_at
            self.over = True
        if now >= self.struck_at + self.limits.back_s and self.back_at is None:
            self.phases[Phase.DURING].lasts_s = now - self.struck_at
            self.over = True
        if not self.over:
            self.agenda.at(now + _LOOK_S, self._look)


def _until_over(calls: Iterator[Call], world: Drilled) -> Iterator[Call]:
    """Requests until the drill is over."""
    for call in calls:
        if world.over:
            return
        yield call


def hurried(calls: Iterator[Call], from_s: float, lasts_s: float, times: float) -> Iterator[Call]:
    """The calls, so many times as fast for a while; those behind it come earlier."""
    until_s = from_s + lasts_s * times  # by the calls' own clock
    for call in calls:
        at_s = call.at_s
        if at_s > until_s:
            at_s -= lasts_s * (times - 1)
        elif at_s > from_s:
            at_s = from_s + (at_s - from_s) / times
        call.at_s = at_s
        yield call


def run_drill(
    scenario: Scenario, drill: Drill, calls: Iterator[Call], times: Times, limits: Limits
) -> Drilled:
    """Plays it. Raises R1ServeError if there is nothing to strike."""
    check_target(scenario, drill)
    if drill is Drill.OVERLOAD:
        calls = hurried(calls, times.strike_s, times.lasts_s, OVERLOAD)
    world = Drilled(replace(scenario, faults=()), drill, times, limits)
    world.run(OpenLoop(_until_over(calls, world)))
    return world


OVERLOAD = 4.0  # times the load before


def check_target(scenario: Scenario, drill: Drill) -> None:
    """Raises R1ServeError if the drill has nothing to strike, or nothing that could take over."""
    roles = {pool.model.role for pool in scenario.pools}
    if drill is Drill.CUT_TRANSFER and Role.PREFILL not in roles:
        raise R1ServeError(
            "cut-transfer has no target: this plan moves no KV, since its gangs do both",
            "give a plan with prefill and decode apart",
        )
    if drill is Drill.DROP_KV_EVENTS and not scenario.kv_events:
        raise R1ServeError(
            "drop-kv-events has no target: these engines publish none",
            "switch them on in the plan",
        )
    if drill is Drill.KILL_GATEWAY and scenario.gateways < 2:
        raise R1ServeError(
            "kill-gateway has no target: the only gateway is the whole API",
            "give --gateways 2, or more",
        )
