"""Gangs as a fleet has them: started, listed, watched, drained, restarted; and the links between.

`Slot` is one replica that the operator pays for from when it has its nodes; `add`, `retire` and
`drain` are all that a decision can do.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator import fleet
from orchestrator.core import RankId, Role
from orchestrator.engines import EngineLoad
from orchestrator.gateway import Member
from orchestrator.sim.agenda import Action
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import GangModel, Job, Stage
from orchestrator.sim.kv_path import Publisher
from orchestrator.sim.network import CONNECT_S

if TYPE_CHECKING:
    from orchestrator.sim.gateway import SimGateway
    from orchestrator.sim.world import World

HEARTBEAT_S = 1.0
LISTING_S = 0.1  # until a gateway's long poll has brought a new list of ranks
EXIT_S = 2.0  # until a dead process is noticed: fleet.health_period_s


@dataclass(frozen=True, slots=True)
class SimPool:
    """So many equal gangs."""

    model: GangModel
    replicas: int = 1


@dataclass(slots=True)
class Slot:
    """One replica and the gang that lives in it now."""

    name: str
    model: GangModel
    gang: Gang | None = None
    lives: int = 0
    ready: bool = False
    listed: bool = False
    pending: bool = False  # it has no nodes yet
    retired: bool = False  # it ends what it has, and is gone then
    held_since: float = 0.0  # when it got its nodes
    down: bool = False  # its nodes are under maintenance
    exited: str | None = None  # a process of the gang has ended, and which
    watch: fleet.Watch = field(default_factory=fleet.Watch)


@dataclass(slots=True)
class _Link:
    """The NICs of one rank, in each direction, until when they are busy."""

    out_until: float = 0.0
    in_until: float = 0.0


class Pools:
    """All gangs of one model."""

    def __init__(self, world: "World", pools: tuple[SimPool, ...]) -> None:
        self._world = world
        self._agenda = world.agenda
        self.slots: list[Slot] = []
        self.loads: dict[tuple[str, int], EngineLoad] = {}
        self.drains: dict[str, float] = {}  # engine id -> when what runs there is to be moved
        self.publishers: dict[RankId, Publisher] = {}
        self.controller_until = 0.0  # nothing is started or listed before
        self.transfers_fail = 0.0  # share of pulls
        self.transfers = 0
        self._gone_gpu_s: dict[Role, float] = {}  # held by replicas that are gone
        self.models = {pool.model.role: pool.model for pool in pools}
        self._names: dict[Role, int] = {}
        self._gangs: dict[str, Gang] = {}
        self._links: dict[tuple[str, int], _Link] = {}
        self._chance = world.chance("transfers")
        for pool in pools:
            for _ in range(pool.replicas):
                self.add(pool.model)

    # --- life ----------------------------------------------------------------------------------

    def add(self, model: GangModel) -> Slot:
        """One more replica; it is not started yet."""
        number = self._names.get(model.role, 0)
        self._names[model.role] = number + 1
        slot = Slot(f"{model.role.value}{number}", model, held_since=self._agenda.now)
        slot.pending = model.gpus > self.gpus_free
        self.slots.append(slot)
        return slot

    @property
    def gpus_held(self) -> dict[Role, int]:
        """GPUs that replicas of each role hold now."""
        held = dict.fromkeys(self.models, 0)
        for slot in self.slots:
            if not slot.pending:
                held[slot.model.role] += slot.model.gpus
        return held

    @property
    def gpus_free(self) -> float:
        """GPUs that no replica holds."""
        return (self._world.scenario.gpus_max or math.inf) - sum(self.gpus_held.values())

    def held_gpu_s(self, now: float) -> dict[str, float]:
        """GPU-seconds that replicas of each role have held, whatever they did with them."""
        held = {role.value: self._gone_gpu_s.get(role, 0.0) for role in self.models}
        for slot in self.slots:
            if not slot.pending:
                held[slot.model.role.value] += (now - slot.held_since) * slot.model.gpus
        return held

    def retire(self, slot: Slot, now: float, drain_s: float) -> None:
        """Takes nothing new, ends what it has within `drain_s`, and gives its nodes back."""
        slot.retired = True
        if slot.gang is None:
            self._remove(slot, now)
            return
        slot.listed = False
        self.tell(slot.model.role)
        gang, until = slot.gang, now + drain_s
        self._drain(gang, now)

        def look(when: float) -> None:
            if slot.gang is gang and gang.open and when < until:
                self._agenda.at(when + HEARTBEAT_S, look)
                return
            if slot.gang is not None:
                self.kill(slot, "it was let go")
            self._remove(slot, when)

        self._agenda.at(now + 3 * LISTING_S, look)

    def _remove(self, slot: Slot, now: float) -> None:
        if slot not in self.slots:
            return
        self.slots.remove(slot)
        slot.lives += 1  # a start that is under way comes to nothing
        if not slot.pending:
            gpu_s = (now - slot.held_since) * slot.model.gpus
            role = slot.model.role
            self._gone_gpu_s[role] = self._gone_gpu_s.get(role, 0.0) + gpu_s
        for other in self.slots:
            if other.pending and other.model.gpus <= self.gpus_free:
                other.pending, other.held_since = False, now
                self.start(other, other.model.start_s)

    def start(self, slot: Slot, after_s: float) -> None:
        """Its gang will be ready so much later: weights are loaded, graphs captured."""
        slot.lives += 1
        life = slot.lives
        self._at_work(after_s, lambda now: self._ready(slot, life, now))

    def _at_work(self, after_s: float, action: Action) -> None:
        """Does it when that time has passed and there is a controller."""

        def when_there(now: float) -> None:
            if now < self.controller_until:
                self._agenda.at(self.controller_until, when_there)
            else:
                action(now)

        self._agenda.at(self._agenda.now + after_s, when_there)

    def _ready(self, slot: Slot, life: int, now: float) -> None:
        if slot.lives != life or slot.down or slot.retired:
            return
        world = self._world
        engine_id = f"{slot.name}.{life}"
        slot.gang = self._gangs[engine_id] = world.gang_class(
            engine_id,
            slot.model,
            self._agenda,
            world,
            world.chance(f"engine {slot.name}"),
            kv_events=world.kv_events,
        )
        slot.ready, slot.listed, slot.exited = True, True, None
        slot.watch = fleet.Watch()
        self._beat(slot.gang)
        self.tell(slot.model.role)

    def tell(self, role: Role) -> None:
        """Tells every gateway, a little later, which ranks of the role there are then."""
        for gateway in self._world.gateways:
            delay_s = LISTING_S * (0.5 + self._world.chance("listing").random())
            self._at_work(delay_s, _lister(gateway, role))

    def members(self, role: Role) -> list[Member]:
        """The ranks that are listed now."""
        return [
            Member(RankId(f"{slot.gang.engine_id}/{index}"), role, "simulated", slot.gang.engine_id)
            for slot in self.slots
            if slot.gang is not None and slot.listed and slot.model.role is role
            for index in range(slot.model.ranks)
        ]

    def gang(self, engine_id: str) -> Gang | None:
        """The gang of that life, if it still lives."""
        return self._gangs.get(engine_id)

    def kill(self, slot: Slot, cause: str, *, again_s: float | None = None) -> None:
        """The gang dies at once, and is started anew; `again_s` instead of its own start time."""
        gang = slot.gang
        if gang is None:
            return
        slot.gang, slot.ready, slot.listed = None, False, False
        self._world.lost(gang, cause)
        gang.die()
        del self._gangs[gang.engine_id]
        self.drains.pop(gang.engine_id, None)
        for index in range(slot.model.ranks):
            self.loads.pop((gang.engine_id, index), None)
            self.publishers.pop(RankId(f"{gang.engine_id}/{index}"), None)
            self._links.pop((gang.engine_id, index), None)
        self.tell(slot.model.role)
        if not slot.down and not slot.retired:
            self.start(slot, slot.model.start_s if again_s is None else again_s)

    def exit_rank(self, slot: Slot) -> None:
        """One process of the gang ends: its step never ends, and the watch will notice."""
        if slot.gang is not None and not slot.gang.hung:
            slot.gang.hang()
            slot.exited = "a rank's process has ended"

    def drain(self, slot: Slot, now: float, drain_s: float, back_s: float) -> None:
        """Takes nothing new, ends what it has within `drain_s`, and comes back `back_s` later."""
        if slot.gang is None or not slot.listed or slot.retired:
            return
        slot.listed = False
        self.tell(slot.model.role)
        gang, until = slot.gang, now + drain_s
        self._drain(gang, now)

        def look(when: float) -> None:
            if slot.gang is not gang:
                return
            if gang.open and when < until:
                self._agenda.at(when + HEARTBEAT_S, look)
                return
            slot.down = True
            self.kill(slot, "its nodes are under maintenance")
            self._agenda.at(when + back_s, lambda _: self._back(slot))

        self._agenda.at(now + 3 * LISTING_S, look)

    def _drain(self, gang: Gang, now: float) -> None:
        self.drains[gang.engine_id] = now + self._world.spec.fleet.drain_wait_s

    def _back(self, slot: Slot) -> None:
        slot.down = False
        if not slot.retired:
            self.start(slot, slot.model.start_s)

    # --- what a fleet sees ---------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """A heartbeat of every rank."""
        for slot in self.slots:
            if slot.gang is not None and not slot.gang.hung:
                self._beat(slot.gang)

    def _beat(self, gang: Gang) -> None:
        for rank in gang.ranks:
            pulling = sum(job.stage is Stage.PULLING for job in rank.apart)  # these wait, for vLLM
            free = rank.blocks.free
            self.loads[gang.engine_id, rank.index] = EngineLoad(
                rank.busy - pulling,
                len(rank.waiting) + pulling,
                1 - free / rank.blocks.capacity,
                gang.ticks,
            )

    def look(self, now: float, limits: fleet.Limits) -> None:
        """The watch of every gang, as in production."""
        for slot in self.slots:
            gang = slot.gang
            if gang is None:
                continue
            seen = fleet.Observation(gang.open, gang.progress, exited=slot.exited)
            verdict, slot.watch = fleet.watch(limits, slot.watch, seen, now)
            if verdict.dead:
                self._world.note("gang_dead", gang=gang.engine_id, reason=verdict.reason)
                self.kill(slot, verdict.cause)

    # --- KV ------------------------------------------------------------------------------------

    def pull(self, gang: Gang, job: Job, now: float) -> None:
        """Moves the KV that the job does not find in its own cache; the NICs of both ranks are busy
        with one transfer at a time.
        """
        assert job.pull is not None
        source = self._gangs.get(job.pull.engine_id)
        held, at = _held(source, job.pull.submission)
        if source is None or held is None:
            cause = "the KV is unknown, or was held for too long"
            self._agenda.at(now + CONNECT_S, lambda when: gang.pulled(job, cause, when))
            return
        out = self._links.setdefault((source.engine_id, at), _Link())
        into = self._links.setdefault((gang.engine_id, job.rank), _Link())
        model = source.model
        tokens = job.prompt_tokens - job.cached_tokens
        begins_at = max(now, out.out_until, into.in_until)
        ends_at = begins_at + model.transfer_base_s + model.transfer_token_s * tokens
        out.out_until = into.in_until = ends_at
        fails = self.transfers_fail > 0 and self._chance.random() < self.transfers_fail
        self.transfers += 1
        pull = job.pull

        def ended(when: float) -> None:
            cause = ""
            if fails:
                cause = "the KV transfer failed"
            elif source.dead or held.stage is not Stage.HELD:
                cause = "the rank that holds the KV does not answer"
            else:
                source.let_go(pull.submission, when)
            gang.pulled(job, cause, when)

        self._agenda.at(ends_at, ended)


def _lister(gateway: "SimGateway", role: Role) -> Action:
    return lambda now: gateway.listed(role)


def _held(gang: Gang | None, submission: str) -> tuple[Job | None, int]:
    if gang is not None:
        for rank in gang.ranks:
            if (job := rank.held.get(submission)) is not None:
                return job, rank.index
    return None, 0
