"""Hosts scaling in virtual time: what gateways have measured goes in, gangs come and go."""

from typing import TYPE_CHECKING, Protocol

from orchestrator import scaling
from orchestrator.core import Role
from orchestrator.scaling import Decision, Gangs, Reason, Seen
from orchestrator.sim.pools import Pools, Slot

if TYPE_CHECKING:
    from orchestrator.sim.world import World

PERIOD_S = 10.0  # of a policy that has no spec


class Policy(Protocol):
    """Decides how many gangs there are to be."""

    def decide(self, seen: Seen, now: float) -> Decision:
        """The targets of all pools."""
        ...


class Planned:
    """Production's own."""

    def __init__(self, plan: scaling.Plan) -> None:
        self.plan = plan
        self._state = scaling.State()

    def decide(self, seen: Seen, now: float) -> Decision:
        """The targets of all pools."""
        decision, self._state = scaling.decide(self.plan, self._state, seen, now)
        return decision


class Scaler:
    """Asks the policy, and does what it says."""

    def __init__(self, world: "World", policy: Policy) -> None:
        self._world = world
        self._policy = policy
        spec = world.spec.models[0].scaling
        self._period_s = PERIOD_S if spec is None else spec.period_s

    def tick(self, now: float) -> None:
        """Decides, and again a period later."""
        world, pools = self._world, self._world.pools
        seen = Seen(
            scaling.together([gateway.service.observe() for gateway in world.gateways]),
            {role: _gangs(pools, role) for role in pools.models},
            world.scenario.week_s + now,
        )
        decision = self._policy.decide(seen, now)
        for target in decision.targets:
            asked = seen.pools[target.role].asked
            if target.reason not in (Reason.STEADY, Reason.DWELL):
                world.decision_line(
                    "scaler",
                    "scaling",
                    {
                        "request_id": target.role.value,
                        "decision": target.gangs,
                        "reason": target.reason,
                        "gangs": asked,
                        "needed": target.needed,
                        "requests_per_s": round(decision.per_s, 4),
                    },
                )
            self._do(target.role, target.gangs - asked, now)
        world.agenda.at(now + self._period_s, self.tick)

    def _do(self, role: Role, more: int, now: float) -> None:
        pools = self._world.pools
        for _ in range(more):
            slot = pools.add(pools.models[role])
            if not slot.pending:
                pools.start(slot, slot.model.start_s)
        if more >= 0:
            return
        for slot in sorted(_own(pools, role), key=_dearness)[:-more]:
            pools.retire(slot, now, self._world.spec.fleet.drain_s)


def _own(pools: Pools, role: Role) -> list[Slot]:
    """A pool's places, without those that are being let go."""
    return [slot for slot in pools.slots if slot.model.role is role and not slot.retired]


def _gangs(pools: Pools, role: Role) -> Gangs:
    own = _own(pools, role)
    return Gangs(
        ready=sum(1 for slot in own if slot.ready),
        starting=sum(1 for slot in own if not slot.ready and not slot.pending),
        pending=sum(1 for slot in own if slot.pending),
    )


def _dearness(slot: Slot) -> tuple[int, int]:
    """What is lost with it: those without nodes first, then those that are starting."""
    if slot.pending:
        return (0, 0)
    if slot.gang is None:
        return (1, 0)
    return (2, slot.gang.open)
