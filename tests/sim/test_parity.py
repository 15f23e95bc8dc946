"""One recorded trace through both hosts: every decision is the same.

Production is the gateway's service on an event loop, with fake engines behind links; its loop's
clock jumps to whatever is next, so that it takes no time and is exact. The simulator plays the
same requests against ranks with the fake engine's arithmetic.
"""

import asyncio
from collections.abc import Callable

import pytest
from typing_extensions import override

from orchestrator.core import RankId, Request, Role
from orchestrator.engines import (
    ChannelLimits,
    EngineLink,
    EngineLoad,
    FakeEngine,
    FakeEngineSpec,
    Sampling,
)
from orchestrator.engines.fake_engine import _Request
from orchestrator.gateway import Channel, Host, Member, Network, Service, Supervisor
from orchestrator.handoff import Word
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.gateway import SimLog
from orchestrator.sim.job import GangModel
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import AdmissionSpec, ChannelSpec, HandoffSpec, ModelSpec, PoolSpec, Spec
from orchestrator.telemetry import Metrics
from tests.virtual_loop import VirtualLoop

STEP_S, TOKEN_S, BLOCK = 0.02, 0.0003, 64
RANKS = 3
BEGINS_S = 0.5  # when the first request comes: all ranks are listed and connected by then


def spec_of(*pools: PoolSpec) -> Spec:
    return Spec(
        models=(ModelSpec("", pools),),
        channel=ChannelSpec(max_requests=6),
        admission=AdmissionSpec(queue_requests_max=5, queue_timeout_s=2.0),
        handoff=HandoffSpec(in_place_max_tokens=256),
    )


UNIFIED = spec_of(PoolSpec(Role.UNIFIED, RANKS))
APART = spec_of(PoolSpec(Role.PREFILL, 2), PoolSpec(Role.DECODE, RANKS))
Decisions = list[tuple[object, ...]]


def trace(seed: int, requests: int = 150) -> list[Call]:
    """Requests that overload the fleet now and then; every third repeats an earlier prompt."""
    chance = Chance(seed)("trace")
    calls: list[Call] = []
    at_s = 0.0
    for number in range(requests):
        ids = tuple(10 + 20 * number + at for at in range(chance.randint(1, 12)))
        if number % 3 == 2 and number > 30:
            ids = calls[number - 30].hash_ids
        prompt = BLOCK * len(ids) - chance.randint(0, 40)
        output = chance.randint(1, 60)
        calls.append(Call(number, at_s, prompt, output, 0, ids, BLOCK, max_tokens=output))
        at_s += chance.expovariate(12.0)
    return calls


class Kept:
    """The decisions of a log, without the numbers that they came from."""

    def __init__(self) -> None:
        self.decisions: Decisions = []

    def line(self, source: str, event: str, fields: dict[str, object]) -> None:
        if event in {"admission", "path", "routing"}:
            names = ("request_id", "decision", "reason")
            self.decisions.append((event, *(str(fields[name]) for name in names)))


# --- production ----------------------------------------------------------------------------------


class _Fake(FakeEngine):
    """Takes up what it has pulled as an engine's scheduler does: it looks when a step begins, and
    what came in the meantime is in the step behind that. Without work it takes no step.
    """

    def __init__(self, spec: FakeEngineSpec, engine_id: str) -> None:
        super().__init__(spec, engine_id)
        self._seen: list[_Request] = []

    async def watch(self) -> None:
        await asyncio.Event().wait()

    @override
    def _step_soon(self, since: float | None = None) -> None:
        if self._running or self._waiting or self._seen:
            super()._step_soon(since)

    @override
    def _pulled(self, request: _Request, cause: str) -> None:
        assert not cause
        if self._running:
            self._seen.append(request)
        else:
            super()._pulled(request, cause)

    @override
    def _let_in(self) -> int:
        tokens = super()._let_in()
        self._waiting.extend(self._seen)
        self._seen.clear()
        return tokens if self._running else tokens + super()._let_in()


class _Link(EngineLink):
    """Tells its load once a second, as a channel's heartbeat does."""

    told: EngineLoad | None = None

    @property
    @override
    def load(self) -> EngineLoad | None:
        return self.told

    def beat(self) -> None:
        self.told = super().load


class FakeNetwork(Network):
    def __init__(self, spec: Spec) -> None:
        super().__init__("gateway1", ChannelLimits())
        self.requests_max = spec.channel.max_requests
        self.links: list[_Link] = []

    @override
    def channel(
        self,
        member: Member,
        on_state: Callable[[], None],
        on_word: Callable[[Word], None],
    ) -> Channel:
        spec = FakeEngineSpec(
            step_s=STEP_S,
            prefill_s_per_token=TOKEN_S,
            answer_tokens=4096,
            prefix_blocks=100_000,
            max_running=256,
        )
        link = _Link(
            lambda: _Fake(spec, member.engine_id),
            member.role,
            self.requests_max,
            lambda _: on_state(),
        )
        self.links.append(link)
        return link


async def _serve(spec: Spec, calls: list[Call], kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    supervisor, network = Supervisor(), FakeNetwork(spec)
    await supervisor.start()
    log = SimLog("gateway1", kept.line)
    service = Service(
        spec,
        spec.models[0],
        "gateway1",
        supervisor=supervisor,
        metrics=Metrics(),
        log=log,
        decisions=log,
        host=Host(network=network),
    )
    service.start()
    for pool in spec.models[0].pools:
        names = [f"{pool.role.value}{at}.1" for at in range(pool.replicas)]
        members = [Member(RankId(f"{name}/0"), pool.role, "", name) for name in names]
        service.update_pool(pool.role, members)

    async def beats() -> None:
        while True:
            for link in network.links:
                link.beat()
            await asyncio.sleep(1.0)

    async def ask(call: Call) -> None:
        await asyncio.sleep(BEGINS_S + call.at_s - loop.time())
        now = loop.time()
        ids = call.prompt_ids()
        request = Request(
            call.request_id,
            len(ids),
            call.max_tokens,
            now,
            now + spec.admission.queue_timeout_s,
        )
        passage = service.open(request, ids, Sampling(call.max_tokens))
        while not passage.ended:
            await passage.wait(now + 1e6)
            passage.take()
        service.close(passage)

    async with asyncio.TaskGroup() as group:
        heart = group.create_task(beats())
        async with asyncio.TaskGroup() as clients:
            for call in calls:
                clients.create_task(ask(call))
        heart.cancel()
    await supervisor.stop()


def in_production(spec: Spec, calls: list[Call]) -> Decisions:
    kept = Kept()
    loop = VirtualLoop()
    try:
        loop.run_until_complete(_serve(spec, calls, kept))
    finally:
        loop.close()
    return kept.decisions


# --- simulated -----------------------------------------------------------------------------------


class FakePasses:
    """The fake engine's time: a step, and in the step that admits prompts so much a token."""

    def __init__(self) -> None:
        self.agenda: Agenda | None = None
        self._paid_at = -1.0

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        assert self.agenda is not None
        self._paid_at = self.agenda.now
        return STEP_S + TOKEN_S * tokens

    def decode_s(self, batch: int, total: int, context: float) -> float:
        assert self.agenda is not None
        return 0.0 if self._paid_at == self.agenda.now else STEP_S

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        return 0.0


def in_the_simulator(spec: Spec, calls: list[Call]) -> Decisions:
    kept, all_passes = Kept(), list[FakePasses]()
    pools = []
    for pool in spec.models[0].pools:
        all_passes.append(FakePasses())
        model = GangModel(pool.role, 1, all_passes[-1], 8192, BLOCK, 256, 1 << 20)
        pools.append(SimPool(model, pool.replicas))
    world = World(Scenario(tuple(pools), kv_events=False, spec=spec))
    for passes in all_passes:
        passes.agenda = world.agenda
    world.brief = lambda at, event, fields: kept.line("", event, fields)
    world.run(OpenLoop(iter(calls)))
    return kept.decisions


def both(spec: Spec, seed: int) -> Decisions:
    """What both hosts have decided."""
    produced = in_production(spec, trace(seed))
    simulated = in_the_simulator(spec, trace(seed))
    for at, (one, other) in enumerate(zip(produced, simulated, strict=False)):
        assert one == other, f"decision {at}"
    assert len(produced) == len(simulated)
    return produced


@pytest.mark.parametrize("seed", range(3))
def test_both_hosts_decide_the_same(seed: int) -> None:
    decisions = both(UNIFIED, seed)
    assert {decision for _, _, decision, _ in decisions} >= {"admit", "queue", "in_place"}
    assert len({decision for event, _, decision, _ in decisions if event == "routing"}) == RANKS


@pytest.mark.parametrize("seed", range(3))
def test_both_hosts_decide_the_same_over_prefill_and_decode_pools(seed: int) -> None:
    decisions = both(APART, seed)
    assert {decision for _, _, decision, _ in decisions} >= {"admit", "in_place", "transfer"}
    routed = {decision for event, _, decision, _ in decisions if event == "routing"}
    assert len(routed) == 2 + RANKS
