"""One simulated fleet and its clients, from the first request to the last."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from orchestrator.core import RankId, Role
from orchestrator.engines import EngineInfo
from orchestrator.fleet import Limits
from orchestrator.gateway import TICK_S
from orchestrator.routing import KvBatch, StepCosts
from orchestrator.scaling import plan_of
from orchestrator.sim.agenda import Action, Agenda
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.chance import Chance
from orchestrator.sim.checks import Checks, Violation
from orchestrator.sim.gang import Gang
from orchestrator.sim.gateway import SimGateway
from orchestrator.sim.job import Job
from orchestrator.sim.kv_path import EventPath, Publisher
from orchestrator.sim.meter import Bounds, Meter
from orchestrator.sim.network import engine_info
from orchestrator.sim.pools import HEARTBEAT_S, Pools, SimPool, Slot
from orchestrator.sim.scaler import Planned, Policy, Scaler
from orchestrator.spec import ModelSpec, PoolSpec, Spec

Write = Callable[[bytes], object]
_encode = msgspec.json.Encoder(enc_hook=str).encode
# Objects that Python makes between two looks for cycles. Prefix indices and requests in flight live
# long and are many, cycles are few: at the usual 700 a seventh of the time went there.
_COLLECT = (50_000, 20, 100)
_LINES_OF_STATE = 200  # of faults and repairs that a report keeps


class Source(Protocol):
    """Where requests come from."""

    def start(self, world: "World") -> None:
        """Sends, or arranges to send, the first."""
        ...

    def ended(self, call: Call, world: "World") -> None:
        """One has ended."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether no more will come."""
        ...


class Fault(Protocol):
    """Something that goes wrong at an instant."""

    @property
    def at_s(self) -> float:
        """When."""
        ...

    def strike(self, world: "World", now: float) -> None:
        """Does it, and arranges for what follows."""
        ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. The same scenario gives the same log, to the byte."""

    pools: tuple[SimPool, ...]
    seed: int = 0
    gateways: int = 1
    kv_events: bool = True
    path: EventPath = field(default_factory=EventPath)
    spec: Spec | None = None  # of the deciding code; None: defaults
    model: str = "DeepSeek-R1-0528"
    max_model_len: int = 131_072
    costs: StepCosts | None = None  # that routing predicts with; None: production's own
    overhead_s: float = 0.0  # of TTFT, what is neither queue nor engine
    warm: bool = True  # gangs are ready at 0; else they start then
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    gpus_max: int = 0  # that there are; 0: as many as are asked for
    week_s: float = 0.0  # since Monday 00:00 UTC, at the beginning
    measured: bool = False  # gateways count what they do in production's own metrics
    stall_s: float = 21_600.0  # behind the last request, after which nobody waits any more


class World:
    """Hosts the deciding code of every gateway, and everything around it."""

    gang_class: type[Gang] = Gang

    def __init__(
        self,
        scenario: Scenario,
        decisions: Write | None = None,
        gang_class: type[Gang] | None = None,
    ) -> None:
        self.scenario = scenario
        self.agenda = Agenda()
        self.chance = Chance(scenario.seed)
        self.checks = Checks()
        self.meter = Meter(bounds=scenario.bounds)
        self.calls: dict[str, Call] = {}  # in flight, by request id
        self.kv_events = scenario.kv_events
        self.event_path = scenario.path
        self.costs = scenario.costs
        self.block_tokens = scenario.pools[0].model.block_tokens
        self.spec = _spec(scenario)
        self.gateways: list[SimGateway] = []
        self.brief: Callable[[float, str, dict[str, object]], None] | None = None
        self.progress: Callable[[float, int, int], None] | None = None  # now, begun, in flight
        self._decisions = decisions
        self._lives = 0
        self._touched: dict[str, Gang] = {}
        self._last_begun_at = 0.0
        self._resting = False  # every request has ended: nothing new begins
        self._keeps = bool(scenario.path.loss or scenario.path.jitter_s or scenario.faults)
        self._source: Source | None = None
        if gang_class is not None:
            self.gang_class = gang_class
        self.pools = Pools(self, scenario.pools)
        model = self.spec.models[0]
        self.scaling: Policy | None = None  # None: the fleet stays as it is
        if model.scaling is not None:
            self.scaling = Planned(plan_of(self.spec, model))

    # --- running -------------------------------------------------------------------------------

    def run(self, source: Source) -> Meter:
        """Until every request has ended. Raises Violation if something that must be true is not."""
        collected = gc.get_threshold()
        gc.set_threshold(*_COLLECT)
        try:
            return self._run(source)
        finally:
            gc.set_threshold(*collected)

    def _run(self, source: Source) -> Meter:
        self._source = source
        for _ in range(self.scenario.gateways):
            self.add_gateway()
        for slot in [slot for slot in self.pools.slots if not slot.pending]:
            self.pools.start(slot, 0.0 if self.scenario.warm else slot.model.start_s)
        self.agenda.at(0.0, self._beat)
        self.agenda.at(0.0, self._tick)
        self.agenda.at(_SETTLED_S if self.scenario.warm else 0.0, lambda _: source.start(self))
        for fault in self.scenario.faults:
            self.agenda.at(fault.at_s, self._striker(fault))
        if self.scaling is not None:
            self.agenda.at(_SETTLED_S, Scaler(self, self.scaling).tick)
        self.agenda.run(self._behind)
        self.meter.held_s = self.pools.held_gpu_s(self.agenda.now)
        self._at_rest()
        return self.meter

    def _striker(self, fault: Fault) -> Action:
        def strike(now: float) -> None:
            if not self._resting:
                fault.strike(self, now)

        return strike

    def _behind(self) -> bool:
        """Behind every event: whether it is the last."""
        now = self.agenda.now
        self.checks.behind(now)
        if self._touched:
            for gang in self._touched.values():
                if found := gang.fault():
                    raise Violation(f"at {now:.6f} s: {found}")
            self._touched.clear()
        assert self._source is not None
        return self.checks.open == 0 and self._source.exhausted

    def _at_rest(self) -> None:
        """What must be true when every request has ended: nobody holds anything for one."""
        self._resting = True
        self.agenda.run(lambda: not any(self._busy(slot) for slot in self.pools.slots))
        for slot in self.pools.slots:
            if slot.gang is not None and (found := slot.gang.fault()):
                raise Violation(f"at rest: {found}")
        for gateway in self.gateways:
            if gateway.passages or gateway.service.held:
                raise Violation(f"at rest: {gateway.gateway_id} still has requests")
        if self.calls:
            raise Violation(f"at rest: {len(self.calls)} requests are known")

    def _busy(self, slot: Slot) -> bool:
        gang = slot.gang
        if gang is None or gang.hung:
            return False
        return gang.open > 0 or any(rank.held for rank in gang.ranks)

    # --- clients -------------------------------------------------------------------------------

    def send(self, call: Call) -> None:
        """A client sends a request now."""
        now = self.agenda.now
        call.at_s = self._last_begun_at = now
        self.checks.begins(call)
        self.meter.line.add("begun", now, 1)
        self.calls[call.request_id] = call
        if self.scenario.overhead_s:
            self.agenda.at(now + self.scenario.overhead_s, lambda when: self._open(call, when))
        else:
            self._open(call, now)

    def _open(self, call: Call, now: float) -> None:
        alive = [gateway for gateway in self.gateways if not gateway.dead]
        if not alive:
            self.ended(call, Outcome.BROKEN, "no gateway")
            return
        min(alive, key=lambda gateway: len(gateway.passages)).open(call, now)

    def ended(self, call: Call, outcome: Outcome, cause: str) -> None:
        """A client has been told the end of its request."""
        now = self.agenda.now
        call.outcome, call.ended_at = outcome, now
        self.checks.ends(call, outcome)
        self.calls.pop(call.request_id, None)
        self.meter.ended(call, outcome, cause, now)
        assert self._source is not None
        self._source.ended(call, self)

    # --- gateways ------------------------------------------------------------------------------

    def add_gateway(self) -> SimGateway:
        """One more gateway replica, which hears of the ranks a little later."""
        self._lives += 1
        gateway = SimGateway(f"gateway{self._lives}", self)
        self.gateways.append(gateway)
        for role in dict.fromkeys(pool.model.role for pool in self.scenario.pools):
            gateway.listed(role)
        return gateway

    def lost(self, gang: Gang, cause: str) -> None:
        """A gang dies: connections to it break."""
        for gateway in self.gateways:
            for channel in list(gateway.network.channels.get(gang.engine_id, ())):
                channel.lose(cause)

    def engine_info(self, gang: Gang) -> EngineInfo:
        """What the gang's engines say of themselves."""
        return engine_info(
            gang, self.scenario.model, self.scenario.max_model_len, kv_events=self.kv_events
        )

    def publisher(self, rank_id: RankId) -> Publisher:
        """Of the rank's KV events."""
        return self.pools.publishers.setdefault(rank_id, Publisher())

    # --- time ----------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        self.pools.beat(now)
        self.meter.line.add("in_flight", now, len(self.calls))
        self.meter.line.add("beats", now, 1)
        for role, gpus in self.pools.gpus_held.items():
            self.meter.line.add(f"held {role.value}", now, gpus * HEARTBEAT_S)
        if self.progress is not None:
            self.progress(now, self.checks.begun, len(self.calls))
        if now > self._last_begun_at + self.scenario.stall_s:
            self.checks.fault(f"{len(self.calls)} requests have not ended for a long time")
        self.agenda.at(now + HEARTBEAT_S, self._beat)

    def _tick(self, now: float) -> None:
        for gateway in self.gateways:
            gateway.tick()
        limits = Limits(self.spec.fleet.stuck_after_s, self.spec.fleet.cut_off_after_s)
        self.pools.look(now, limits)
        self.agenda.at(now + TICK_S, self._tick)

    # --- what gangs call -----------------------------------------------------------------------

    def pull(self, gang: Gang, job: Job, now: float) -> None:
        """Fetches KV."""
        self.pools.pull(gang, job, now)

    def publish(self, gang: Gang, rank: int, batch: KvBatch, now: float) -> None:
        """Sends KV events."""
        publisher = self.pools.publishers.get(RankId(f"{gang.engine_id}/{rank}"))
        if publisher is not None:
            publisher.publish(batch, now, keep=self._keeps)

    def poisoned(self, gang: Gang, job: Job, now: float) -> None:
        """A request has killed its engine."""
        for slot in self.pools.slots:
            if slot.gang is gang:
                self.note("poisoned", gang=gang.engine_id)
                self.pools.kill(slot, "the engine died of a request")

    def stepped(self, gang: Gang, began_at: float, now: float, tokens: int) -> None:
        """The gang was busy."""
        role = gang.model.role.value
        gpu_s = (now - began_at) * gang.model.gpus
        self.meter.busy_s[role] = self.meter.busy_s.get(role, 0.0) + gpu_s
        self.meter.line.spread(role, began_at, now, gpu_s)
        if tokens:
            self.meter.line.spread("tokens", began_at, now, tokens)
        self._touched[gang.engine_id] = gang

    def gaps(self, gang: Gang, gap_s: float, arrivals: int, tokens: int) -> None:
        """Tokens came so far behind those before them; those of one step come together."""
        if arrivals:
            self.meter.itl.add(gap_s, arrivals)
        if tokens > arrivals:
            self.meter.itl.add(0.0, tokens - arrivals)

    # --- logs ----------------------------------------------------------------------------------

    def note(self, event: str, **fields: object) -> None:
        """A fault, or a repair."""
        self.log_line("world", event, fields)

    def log_line(self, source: str, event: str, fields: dict[str, object]) -> None:
        """A change of state."""
        if source == "world" and len(self.meter.notes) < _LINES_OF_STATE:
            words = " ".join(f"{key}={value}" for key, value in fields.items())
            self.meter.notes.append((self.agenda.now, f"{event} {words}"))
        if self._decisions is not None:
            self._write(source, event, fields)

    @property
    def logs(self) -> bool:
        """Whether decisions are written with their inputs."""
        return self._decisions is not None

    def decision_line(self, source: str, event: str, fields: dict[str, object]) -> None:
        """A decision with its reason and its inputs."""
        if "reason" in fields:
            self.meter.decisions[event, str(fields["reason"])] += 1
        if self.brief is not None and "reason" in fields:
            self.brief(self.agenda.now, event, fields)
        if self._decisions is not None:
            self._write(source, event, fields)

    def _write(self, source: str, event: str, fields: dict[str, object]) -> None:
        assert self._decisions is not None
        head = {"at": self.agenda.now, "event": event, "source": source}
        self._decisions(_encode(head | fields) + b"\n")


_SETTLED_S = 0.5  # a warm fleet's ranks are listed and connected by then


def _spec(scenario: Scenario) -> Spec:
    if scenario.spec is not None:
        return scenario.spec
    roles: dict[Role, PoolSpec] = {}
    for pool in scenario.pools:
        roles.setdefault(pool.model.role, PoolSpec(pool.model.role, pool.replicas))
    model = ModelSpec("", tuple(roles.values()), scenario.model)
    return Spec(models=(model,))
