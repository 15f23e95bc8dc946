"""A gateway replica in virtual time: production's own `Service`, without an event loop."""

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from orchestrator.admission import Shed
from orchestrator.core import Finish, Request, Role, TokenCounts, TokenIds, TokenLogprob
from orchestrator.engines import ChannelLimits, Sampling
from orchestrator.gateway import Host, Passage, Service, Spending, Supervisor, Times
from orchestrator.handoff import Finished, Handoff
from orchestrator.routing import same_costs
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.network import SimNetwork
from orchestrator.telemetry import Log, Metrics
from orchestrator.telemetry.metrics.metric import Metric

if TYPE_CHECKING:
    from orchestrator.sim.world import World

Write = Callable[[str, dict[str, object]], None]


class SimGateway:
    """One life of one gateway replica."""

    def __init__(self, gateway_id: str, world: "World") -> None:
        self.gateway_id = gateway_id
        self.dead = False
        self._world = world
        spec = world.spec
        self.metrics = Metrics() if world.scenario.measured else _NoMetrics()
        self._spending = Spending(self.metrics, spec)
        limits = ChannelLimits(
            heartbeat_s=spec.channel.heartbeat_s,
            lost_after_s=spec.channel.lost_after_s,
            max_requests=spec.channel.max_requests,
        )
        self.network = SimNetwork(gateway_id, world, limits)
        self.passages: dict[int, SimPassage] = {}  # of calls that have not ended
        self.service = Service(
            spec,
            spec.models[0],
            gateway_id,
            supervisor=_NoTasks(),
            metrics=self.metrics,
            log=SimLog(gateway_id, world.log_line),
            decisions=SimLog(gateway_id, world.decision_line, whole=world.logs),
            host=Host(
                world.agenda.time, world.agenda.soon, self.network, self._passage, remembers=False
            ),
        )
        if world.costs is not None:
            self.service.ranks.costs = same_costs(world.costs)

    def listed(self, role: Role) -> None:
        """The fleet's list has come."""
        if not self.dead:
            self.service.update_pool(role, self._world.pools.members(role))

    def open(self, call: Call, now: float) -> None:
        """Takes a client's request."""
        spec = self._world.spec
        ids = call.prompt_ids()
        request = Request(
            call.request_id,
            len(ids),
            call.max_tokens,
            now,
            now + spec.admission.queue_timeout_s,
            tenant=call.tenant,
            klass=call.klass,
        )
        self.service.open(request, ids, Sampling(call.max_tokens))

    def _passage(
        self,
        request: Request,
        prompt_ids: TokenIds,
        sampling: Sampling,
        machine: Handoff,
        cache_salt: str,
        pin_ids: frozenset[int] | None,
    ) -> Passage:
        call = self._world.calls[request.request_id]
        passage = SimPassage(request, prompt_ids, sampling, machine, cache_salt, pin_ids)
        passage.call, passage.gateway = call, self
        self.passages[call.number] = passage
        return passage

    def ended(self, passage: "SimPassage", outcome: Outcome, cause: str) -> None:
        """The passage has its end."""
        if self.dead:
            return
        del self.passages[passage.call.number]
        if self._world.scenario.measured:
            self._measure(passage.call, outcome)
        self._world.agenda.soon(lambda: self._close(passage))
        self._world.ended(passage.call, outcome, cause)

    def _measure(self, call: Call, outcome: Outcome) -> None:
        """What the HTTP side and the tenants' books do of an end."""
        thinking = min(call.thinking_tokens, call.emitted)
        answer, cached = call.emitted - thinking, min(call.cached_tokens, call.prompt_tokens)
        times = Times(call.at_s, call.first_at)
        now = self._world.agenda.now
        word = _OUTCOMES[outcome]
        self.service.measures.ended(call.klass, word, times, thinking, answer, now)
        if call.emitted:
            used = TokenCounts(call.prompt_tokens - cached, cached, thinking, answer)
            model = self.service.model
            self._spending.charged(model, call.klass, TokenCounts(), used, 0)

    def _close(self, passage: "SimPassage") -> None:
        if not self.dead:
            self.service.close(passage)

    def first_token(self, call: Call) -> None:
        """The client has its first token."""
        if self.dead:
            return
        call.first_at = self._world.agenda.now
        if self._world.scenario.measured:
            passage = self.passages[call.number]
            self.service.measures.first(passage.request, call.first_at - call.at_s)

    def tick(self) -> None:
        """Time has passed."""
        if self.dead:
            return
        for engine_id in self._world.pools.drains:
            for channel in self.network.channels.get(engine_id, ()):
                channel.bring()
        self.service.tick()

    def die(self) -> None:
        """The process ends: its clients see a broken stream, its ranks a closed connection."""
        self.dead = True
        calls = [passage.call for passage in self.passages.values()]
        self.passages.clear()
        for channels in list(self.network.channels.values()):
            for channel in list(channels):
                channel.drop()
        for stream in self.network.streams:
            stream.close()
        for call in calls:
            self._world.ended(call, Outcome.BROKEN, "its gateway died")


class SimPassage(Passage):
    """A passage whose client reads at once and keeps nothing."""

    call: Call
    gateway: SimGateway

    @override
    def put(self, ids: list[int], logprobs: Sequence[TokenLogprob]) -> None:
        call = self.call
        if not call.emitted:
            self.gateway.first_token(call)
        call.emitted += len(ids)

    @override
    def finish(self, end: Finished | Shed) -> None:
        super().finish(end)
        self.call.cached_tokens = self.handoff.cached_tokens
        if isinstance(end, Shed):
            self.gateway.ended(self, Outcome.SHED, end.reason)
            return
        outcome = {
            Finish.STOP: Outcome.FINISHED,
            Finish.LENGTH: Outcome.FINISHED,
            Finish.REFUSED: Outcome.REFUSED,
        }.get(end.finish, Outcome.FAILED)
        self.gateway.ended(self, outcome, end.cause)


class SimLog(Log):
    """Hands lines to the world, which knows what time it is."""

    def __init__(
        self,
        source: str,
        write: Callable[[str, str, dict[str, object]], None],
        *,
        whole: bool = True,
    ) -> None:
        super().__init__(source)
        self._source_name = source
        self._pass_on = write
        self._whole = whole

    @property
    @override
    def whole(self) -> bool:
        return self._whole

    @override
    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        self._pass_on(self._source_name, event, fields)


class _NoTasks(Supervisor):
    """There is nothing to run beside virtual time."""

    @override
    def spawn(self, work: Coroutine[None, None, None]) -> Any:
        work.close()


_OUTCOMES = {
    Outcome.FINISHED: "stop",
    Outcome.SHED: "error_503",
    Outcome.REFUSED: "error_400",
    Outcome.FAILED: "insufficient_system_resource",
    Outcome.BROKEN: "cancelled",  # nobody is left to count it
}


class _NoMetrics(Metrics):
    """The world measures by itself."""

    def __init__(self) -> None:
        pass

    @override
    def count(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        pass

    @override
    def set(self, metric: Metric, value: float, *labels: str) -> None:
        pass

    @override
    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        pass

    @override
    def before_exposition(self, action: Callable[[], None]) -> None:
        pass
