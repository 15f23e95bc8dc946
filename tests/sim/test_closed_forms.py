"""The simulator against what can be computed on paper, and against DeepSeek's published day."""

import random
from dataclasses import dataclass, replace

import pytest

from orchestrator.core import Finish, Role
from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    EngineFamily,
    Layout,
    LayoutGrid,
    Precision,
)
from orchestrator.perf.facts import Day, nodes_for
from orchestrator.routing import KvBatch
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.call import Call
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import GangModel, Job, Passes
from orchestrator.sim.models import gang_model
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import ClosedLoop, OpenLoop
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import AdmissionSpec, ChannelSpec, ModelSpec, PoolSpec, Spec


class Nobody:
    """The surroundings of a gang that is alone."""

    def pull(self, gang: Gang, job: Job, now: float) -> None:
        raise AssertionError

    def publish(self, gang: Gang, rank: int, batch: KvBatch, now: float) -> None:
        raise AssertionError

    def poisoned(self, gang: Gang, job: Job, now: float) -> None:
        raise AssertionError

    def stepped(self, gang: Gang, began_at: float, now: float, tokens: int) -> None:
        pass

    def gaps(self, gang: Gang, gap_s: float, arrivals: int, tokens: int) -> None:
        pass


class Client:
    """Notes when its job had its first token."""

    def __init__(self, at: float, waits: list[float]) -> None:
        self.at = at
        self.waits = waits

    def on_first(self, job: Job, now: float) -> None:
        self.waits.append(now - self.at)

    def on_end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        assert finish is Finish.STOP


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_prompts_that_come_at_random_wait_as_in_an_m_d_1_queue(load: float) -> None:
    prompt = 1000
    passes = Linear(base_s=0.05, token_s=1e-4)
    service_s = passes.prefill_s(prompt, prompt, passes.attention_s(prompt, 0, 0))
    model = GangModel(Role.UNIFIED, 1, passes, 1 << 20, chunk_tokens=prompt)
    agenda, waits = Agenda(), list[float]()
    gang = Gang("g", model, agenda, Nobody(), random.Random(1), kv_events=False)
    chance, at = random.Random("arrivals"), 0.0
    for number in range(20_000):
        job = Job(str(number), Client(at, waits), prompt, (), (), 1)
        agenda.at(at, lambda now, job=job: gang.submit(0, job, now))  # type: ignore[misc]
        at += chance.expovariate(load / service_s)
    agenda.run()
    expected_s = load * service_s / (2 * (1 - load))
    wait_s = sum(waits) / len(waits) - service_s
    assert wait_s == pytest.approx(expected_s, rel=0.06)


def test_requests_in_flight_are_arrivals_times_their_stay() -> None:
    model = GangModel(Role.UNIFIED, 2, Linear(), 4000, sequences_max=64)
    chance = random.Random("little")

    def calls() -> "list[Call]":
        at, made = 0.0, []
        for number in range(3000):
            made.append(Call(number, at, chance.randint(1, 900), chance.randint(1, 400)))
            at += chance.expovariate(8.0)
        return made

    world = World(Scenario((SimPool(model, 2),), seed=3))
    meter = world.run(OpenLoop(iter(calls())))
    line = meter.line.sums
    sampled = sum(line["in_flight"]) / sum(line["beats"])
    rate = meter.e2e.count / meter.last_end_at
    assert sampled == pytest.approx(rate * meter.e2e.mean, rel=0.03)


# --- DeepSeek's day ------------------------------------------------------------------------------

_ENDLESS = Spec(
    models=(ModelSpec("", (PoolSpec(Role.UNIFIED),)),),
    channel=ChannelSpec(max_requests=1 << 20),
    admission=AdmissionSpec(queue_requests_max=1 << 20, queue_timeout_s=1e9),
)


def _model(role: Role, layout: Layout, sequences_max: int) -> GangModel:
    grid = LayoutGrid.of(
        [layout],
        ARCHITECTURES["DeepSeek-R1"],
        HARDWARE["H800"],
        Precision(),
        EngineFamily.IN_HOUSE,
    )
    return gang_model(role, grid, sequences_max=sequences_max)


def _input_tokens_per_s_per_node(day: Day) -> float:
    """Of a full EP32 prefill gang, prompts whose first 56 % are in the cache."""
    layout = Layout(dp=32, ep=32, redundant_experts=32, overlap=True, chunk_tokens=16_384)
    model = _model(Role.UNIFIED, layout, 8)
    prompt = round(day.context_tokens)
    shared = round(prompt * day.cached_tokens / day.input_tokens)
    block = model.block_tokens

    def call(number: int) -> Call:
        same, blocks = shared // block, -(-prompt // block)
        own = 1000 * (number + 1)
        ids = (*range(1, 1 + same), *range(own, own + blocks - same))
        return Call(number, 0.0, prompt, 1, 0, ids, block)

    total = 32 * 96
    world = World(Scenario((SimPool(model),), kv_events=False, spec=_ENDLESS))
    meter = world.run(ClosedLoop(call, 32 * 12, total))
    assert meter.cached_tokens / meter.prompt_tokens == pytest.approx(
        0.55, abs=0.06
    )  # the first wave finds nothing
    return meter.prompt_tokens / (meter.last_end_at - 0.5) / (model.gpus / 8)


def _output_tokens_per_s_per_node(day: Day) -> float:
    """Of an EP144 decode gang, at the largest batch where a user gets the day's rate."""
    layout = Layout(dp=144, ep=144, redundant_experts=32, overlap=True)
    model = _model(Role.DECODE, layout, 256)
    context = day.context_tokens
    batch = max(
        batch
        for batch in range(8, 257)
        if model.passes.decode_s(batch, batch * 144, batch * context) <= 1 / day.token_rate
    )
    output = 300
    model = replace(model, passes=DecodeOnly(model.passes))
    agenda, gone = Agenda(), list[float]()
    gang = Gang("g", model, agenda, Nobody(), random.Random(1), kv_events=False)
    prompt = round(context) - output // 2
    for rank in range(144):
        for number in range(batch):
            job = Job(f"{rank}/{number}", Client(0.0, gone), prompt, (), (), output)
            gang.submit(rank, job, 0.0)
    agenda.run()
    assert len(gone) == 144 * batch
    token_s = (agenda.now - max(gone)) / (output - 1)
    return 144 * batch / token_s / (model.gpus / 8)


@dataclass(frozen=True, slots=True)
class DecodeOnly:
    """Passes of a gang whose prompts are computed elsewhere, in no time."""

    own: Passes

    def decode_s(self, batch: int, total: int, context: float) -> float:
        return self.own.decode_s(batch, total, context)

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        return 1e-9

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        return 0.0


@pytest.mark.timeout(120)
def test_the_fleet_of_deepseeks_day_is_found_within_ten_percent() -> None:
    day = Day()
    nodes = nodes_for(day, _input_tokens_per_s_per_node(day), _output_tokens_per_s_per_node(day))
    assert nodes == pytest.approx(day.nodes, rel=0.10)
