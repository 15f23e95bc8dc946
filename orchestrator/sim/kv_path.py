"""How the KV events of a simulated rank reach a gateway: late, out of order or not at all, and
asked for again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.gateway import Member
from orchestrator.routing import KvBatch, KvStream, Router
from orchestrator.sim.agenda import Action

if TYPE_CHECKING:
    from orchestrator.sim.world import World

_HISTORY = 256  # batches that a publisher keeps for replays; vLLM keeps 10,000


@dataclass(frozen=True, slots=True)
class EventPath:
    """How KV events reach a gateway; asking for a replay takes twice as long."""

    delay_s: float = 0.05
    jitter_s: float = 0.0  # at most so much more: batches may overtake each other
    loss: float = 0.0  # of batches, when they are published; answers to replays are not lost


class SimEvents:
    """The KV events of one rank at one gateway."""

    def __init__(self, world: "World", gateway_id: str, member: Member, router: Router) -> None:
        self.stream = KvStream(replays=True)
        self.malformed = 0
        self.world = world
        self._router = router
        self._rank_id = member.rank_id
        self.closed = False
        self._deaf_until = 0.0
        self._chance = world.chance(f"kv events {gateway_id}")
        self._publisher = world.publisher(member.rank_id)
        self._publisher.listeners.append(self)
        self._ask(self._router.take(self._rank_id, self.stream.start()))

    async def run(self) -> None:
        """Nothing to await in virtual time."""

    def close(self) -> None:
        """Ends it."""
        if not self.closed:
            self.closed = True
            self._publisher.listeners.remove(self)

    def drop(self, lasts_s: float) -> None:
        """What is published from now on gets lost."""
        self._deaf_until = self.world.agenda.now + lasts_s

    def published(self, batch: KvBatch, now: float) -> None:
        """A batch has left its rank."""
        if now < self._deaf_until:
            return
        path = self.world.event_path
        if path.loss and self._chance.random() < path.loss:
            return
        late_s = path.delay_s
        if path.jitter_s:
            late_s += path.jitter_s * self._chance.random()
        self.world.agenda.at(now + late_s, lambda when: self._arrived(batch))

    def _arrived(self, batch: KvBatch) -> None:
        if not self.closed:
            self._ask(self._router.take(self._rank_id, self.stream.on_live(batch)))

    def _ask(self, asked: Sequence[object]) -> None:
        for each in asked:
            first = int(getattr(each, "first", 0))
            when = self.world.agenda.now + 2 * self.world.event_path.delay_s
            self.world.agenda.at(when, self._replayer(first))

    def _replayer(self, first: int) -> Action:
        return lambda now: self._replay(first)

    def _replay(self, first: int) -> None:
        if self.closed:
            return
        take, rank_id = self._router.take, self._rank_id
        asked = []
        for batch in list(self._publisher.history):
            if batch.sequence >= first:
                asked += take(rank_id, self.stream.on_replayed(batch))
        asked += take(rank_id, self.stream.on_replay_end())
        self._ask(asked)


class Publisher:
    """What one rank has published, and who listens."""

    def __init__(self) -> None:
        self.history: deque[KvBatch] = deque(maxlen=_HISTORY)
        self.listeners: list[SimEvents] = []

    def publish(self, batch: KvBatch, now: float, *, keep: bool) -> None:
        """One batch; `keep` if it may be asked for again."""
        if keep:
            self.history.append(batch)
        for listener in list(self.listeners):
            listener.published(batch, now)
