"""What goes wrong: one small class a kind, and schedules of them drawn from a seed."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.core import Role
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.gateway import SimGateway
from orchestrator.sim.pools import Slot

if TYPE_CHECKING:
    from orchestrator.sim.world import World

_GATEWAY_BACK_S = 15.0  # until a replica of the gateway has been started again
DRAIN_S = 1_800.0


class Kind(StrEnum):
    """What goes wrong."""

    RANK_DEATH = "rank_death"  # one process of a gang ends, the others wait for it in a collective
    GANG_DEATH = "gang_death"  # a node or a whole gang is gone at once
    GATEWAY_DEATH = "gateway_death"
    SLOW_RANK = "slow_rank"  # a throttled GPU, which all of its gang wait for
    LINK_LOSS = "link_loss"  # nothing passes between one gateway and one gang
    TRANSFER_FAILURE = "transfer_failure"  # a share of KV transfers fails
    EVENT_LOSS = "event_loss"  # KV events get lost and overtake each other
    CONTROLLER_RESTART = "controller_restart"  # nothing is started or listed for a while
    MAINTENANCE = "maintenance"  # a gang's nodes are cordoned, drained and given back
    SPIKE = "spike"  # many requests at once
    POISON = "poison"  # a request that kills the engine that prefills it


@dataclass(frozen=True, slots=True)
class SimFault:
    """One fault. `which` picks the victim among those there are; `size` is between 0 and 1."""

    at_s: float
    kind: Kind
    which: int = 0
    lasts_s: float = 10.0
    size: float = 0.5
    role: Role | None = None  # of the gang that is hit; None: any

    def strike(self, world: "World", now: float) -> None:
        """Does it, and arranges for what follows."""
        world.note(self.kind.value, which=self.which, lasts_s=round(self.lasts_s, 3))
        _STRIKES[self.kind](self, world, now)

    def _slot(self, world: "World") -> Slot | None:
        """A replica whose gang lives."""
        living = [
            slot
            for slot in world.pools.slots
            if slot.gang is not None and self.role in (None, slot.model.role)
        ]
        return living[self.which % len(living)] if living else None

    def _gateway(self, world: "World") -> SimGateway | None:
        living = [gateway for gateway in world.gateways if not gateway.dead]
        return living[self.which % len(living)] if living else None

    def _rank_death(self, world: "World", now: float) -> None:
        if (slot := self._slot(world)) is not None:
            world.pools.exit_rank(slot)

    def _gang_death(self, world: "World", now: float) -> None:
        if (slot := self._slot(world)) is not None:
            world.pools.kill(slot, "the gang died")

    def _fail_transfers(self, world: "World", now: float) -> None:
        world.pools.transfers_fail = self.size
        world.agenda.at(now + self.lasts_s, lambda _: _transfers_heal(world))

    def _lose_events(self, world: "World", now: float) -> None:
        path = world.event_path
        world.event_path = replace(path, loss=self.size, jitter_s=self.size)
        world.agenda.at(now + self.lasts_s, lambda _: _events_heal(world))

    def _stop_controller(self, world: "World", now: float) -> None:
        until = now + self.lasts_s
        world.pools.controller_until = max(world.pools.controller_until, until)

    def _maintain(self, world: "World", now: float) -> None:
        if (slot := self._slot(world)) is not None:
            world.pools.drain(slot, now, DRAIN_S, self.lasts_s)

    def _gateway_death(self, world: "World", now: float) -> None:
        gateway = self._gateway(world)
        if gateway is not None:
            gateway.die()
            world.gateways.remove(gateway)
            world.agenda.at(now + _GATEWAY_BACK_S, lambda _: _gateway_back(world))

    def _slow(self, world: "World", now: float) -> None:
        slot = self._slot(world)
        if slot is None or slot.gang is None:
            return
        gang = slot.gang
        gang.slow = 1.0 + 4.0 * self.size

        def heal(_: float) -> None:
            gang.slow = 1.0

        world.agenda.at(now + self.lasts_s, heal)

    def _cut(self, world: "World", now: float) -> None:
        slot, gateway = self._slot(world), self._gateway(world)
        if slot is None or slot.gang is None or gateway is None:
            return
        channels = list(gateway.network.channels.get(slot.gang.engine_id, ()))
        for channel in channels:
            channel.cut(now)

        def heal(when: float) -> None:
            for channel in channels:
                channel.heal(when)

        world.agenda.at(now + self.lasts_s, heal)

    def _send(self, world: "World", now: float) -> None:
        poison = self.kind is Kind.POISON
        for at in range(1 if poison else 1 + int(60 * self.size)):
            # apart from all numbers that a trace has
            number = (1 << 40) + int(self.at_s * 1e6) * 1000 + at
            world.send(Call(number, 0.0, 700, 200, poison=poison, klass="fault"))


def _transfers_heal(world: "World") -> None:
    world.pools.transfers_fail = 0.0


def _events_heal(world: "World") -> None:
    world.event_path = world.scenario.path


def _gateway_back(world: "World") -> None:
    world.add_gateway()


_STRIKES: Mapping[Kind, Callable[[SimFault, "World", float], None]] = {
    Kind.RANK_DEATH: SimFault._rank_death,
    Kind.GANG_DEATH: SimFault._gang_death,
    Kind.GATEWAY_DEATH: SimFault._gateway_death,
    Kind.SLOW_RANK: SimFault._slow,
    Kind.LINK_LOSS: SimFault._cut,
    Kind.TRANSFER_FAILURE: SimFault._fail_transfers,
    Kind.EVENT_LOSS: SimFault._lose_events,
    Kind.CONTROLLER_RESTART: SimFault._stop_controller,
    Kind.MAINTENANCE: SimFault._maintain,
    Kind.SPIKE: SimFault._send,
    Kind.POISON: SimFault._send,
}

_DRAW: Mapping[Kind, Callable[[random.Random], float]] = {
    Kind.SLOW_RANK: lambda chance: chance.uniform(5, 60),
    Kind.LINK_LOSS: lambda chance: chance.uniform(1, 40),
    Kind.TRANSFER_FAILURE: lambda chance: chance.uniform(5, 60),
    Kind.EVENT_LOSS: lambda chance: chance.uniform(5, 60),
    Kind.CONTROLLER_RESTART: lambda chance: chance.uniform(5, 60),
    Kind.MAINTENANCE: lambda chance: chance.uniform(10, 120),
}


def draw_faults(
    chance: Chance, kinds: Sequence[Kind], duration_s: float, each: int = 1
) -> tuple[SimFault, ...]:
    """`each` faults of every kind within a time, each kind from a stream of its own."""
    found: list[SimFault] = []
    for kind in kinds:
        stream = chance(f"fault {kind.value}")
        for _ in range(each):
            lasts = _DRAW.get(kind)
            found.append(
                SimFault(
                    stream.uniform(0.05, 0.95) * duration_s,
                    kind,
                    stream.randrange(1 << 16),
                    lasts(stream) if lasts is not None else 0.0,
                    stream.uniform(0.1, 0.9),
                )
            )
    return tuple(sorted(found, key=lambda fault: (fault.at_s, fault.kind)))
