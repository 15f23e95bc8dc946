"""One recorded trace through both hosts: every decision is the same.

Production is the gateway's service on an event loop, with fake engines behind links; its loop's
clock jumps to whatever is next, so that it takes no time and is exact. The simulator plays the
same requests against ranks with the fake engine's arithmetic.
"""

import asyncio
import selectors
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
from orchestrator.gateway import Channel, Host, Member, Network, Service, Supervisor
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.gateway import SimLog
from orchestrator.sim.job import GangModel
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import AdmissionSpec, ChannelSpec, ModelSpec, PoolSpec, Spec
from orchestrator.telemetry import Metrics

STEP_S, TOKEN_S, BLOCK = 0.02, 0.0003, 64
RANKS = 3
BEGINS_S = 0.5  # when the first request comes: all ranks are listed and connected by then
SPEC = Spec(
    models=(ModelSpec("", (PoolSpec(Role.UNIFIED, RANKS),)),),
    channel=ChannelSpec(max_requests=6),
    admission=AdmissionSpec(queue_requests_max=5, queue_timeout_s=2.0),
)
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


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: when no socket is ready, the time that was to be waited has passed."""

    passed_s = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock begins at 0 and jumps."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    @override
    def time(self) -> float:
        return self._jumping.passed_s


class _Fake(FakeEngine):
    async def watch(self) -> None:
        await asyncio.Event().wait()


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
    def __init__(self) -> None:
        super().__init__("gateway1", ChannelLimits())
        self.links: list[_Link] = []

    @override
    def channel(self, member: Member, on_state: Callable[[], None]) -> Channel:
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
            SPEC.channel.max_requests,
            lambda _: on_state(),
        )
        self.links.append(link)
        return link


async def _serve(calls: list[Call], kept: Kept) -> None:
    loop = asyncio.get_running_loop()
    supervisor, network = Supervisor(), FakeNetwork()
    await supervisor.start()
    log = SimLog("gateway1", kept.line)
    service = Service(
        SPEC,
        SPEC.models[0],
        "gateway1",
        supervisor=supervisor,
        metrics=Metrics(),
        log=log,
        decisions=log,
        host=Host(network=network),
    )
    service.start()
    service.update_pool(
        Role.UNIFIED,
        [
            Member(RankId(f"unified{at}.1/0"), Role.UNIFIED, "", f"unified{at}.1")
            for at in range(RANKS)
        ],
    )

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
            now + SPEC.admission.queue_timeout_s,
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


def in_production(calls: list[Call]) -> Decisions:
    kept = Kept()
    loop = VirtualLoop()
    try:
        loop.run_until_complete(_serve(calls, kept))
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


def in_the_simulator(calls: list[Call]) -> Decisions:
    kept, passes = Kept(), FakePasses()
    model = GangModel(Role.UNIFIED, 1, passes, 8192, BLOCK, 256, 1 << 20)
    world = World(Scenario((SimPool(model, RANKS),), kv_events=False, spec=SPEC))
    passes.agenda = world.agenda
    world.brief = lambda at, event, fields: kept.line("", event, fields)
    world.run(OpenLoop(iter(calls)))
    return kept.decisions


@pytest.mark.parametrize("seed", range(3))
def test_both_hosts_decide_the_same(seed: int) -> None:
    produced = in_production(trace(seed))
    simulated = in_the_simulator(trace(seed))
    assert {decision for _, _, decision, _ in produced} >= {"admit", "queue", "in_place"}
    assert len({decision for event, _, decision, _ in produced if event == "routing"}) == RANKS
    for at, (one, other) in enumerate(zip(produced, simulated, strict=False)):
        assert one == other, f"decision {at}"
    assert len(produced) == len(simulated)
