"""A short day of a small fleet, drawn from a seed: what is run by the thousand to find faults.

A story that breaks a rule is told again with fewer faults and fewer requests, until nothing can be
left out; what remains is short enough to be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.core import Role
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.checks import Violation
from orchestrator.sim.faults import Kind, SimFault, draw_faults
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import GangModel, Scheduling
from orchestrator.sim.kv_path import EventPath
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import (
    AdmissionSpec,
    ChannelSpec,
    EngineSpec,
    FleetSpec,
    HandoffSpec,
    ModelSpec,
    PoolScaling,
    PoolSpec,
    ScalingSpec,
    Spec,
    StepCosts,
)

_BLOCK = 16
_FAR = 1 << 20


@dataclass(frozen=True, slots=True)
class Linear:
    """Passes that are straight lines, for engines of no machine in particular."""

    base_s: float = 0.01
    token_s: float = 20e-6
    step_s: float = 0.02
    request_s: float = 1e-4

    def decode_s(self, batch: int, total: int, context: float) -> float:
        """One decode step."""
        return self.step_s + self.request_s * batch + 1e-8 * context

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        """One pass over prompt tokens."""
        return self.base_s + self.token_s * tokens + attention_s

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        """What attention adds."""
        return 1e-10 * tokens * (before + tokens)


@dataclass(frozen=True, slots=True)
class Story:
    """One seed's fleet, requests and faults, without the requests whose numbers are `left_out`."""

    seed: int
    faults: tuple[SimFault, ...]
    requests: int
    left_out: frozenset[int] = frozenset()

    def scenario(self) -> Scenario:
        """The fleet of the seed."""
        return replace(_fleet(self.seed), faults=self.faults)

    def calls(self) -> Iterator[Call]:
        """The seed's requests, without those that are left out."""
        for call in _calls(self.seed, self.requests):
            if call.number not in self.left_out:
                yield call

    def tell(self, gang_class: type[Gang] = Gang) -> World:
        """Runs it. Raises Violation."""
        world = World(self.scenario(), gang_class=gang_class)
        world.run(OpenLoop(self.calls()))
        return world

    def fault(self, gang_class: type[Gang] = Gang) -> str:
        """What is violated, or ""."""
        try:
            self.tell(gang_class)
        except (Violation, AssertionError) as violation:
            return str(violation) or "an assertion"
        return ""


def story_of(seed: int, requests: int = 60) -> Story:
    """The whole story of a seed: every kind of fault may happen."""
    chance = Chance(seed)
    stream = chance("story")
    kinds = [kind for kind in Kind if stream.random() < 0.5]
    return Story(seed, draw_faults(chance, kinds, _DURATION_S, each=1), requests)


def shrink(story: Story, gang_class: type[Gang] = Gang, tries: int = 400) -> Story:
    """A shorter story that violates something too."""
    shorter = True
    while shorter and tries > 0:
        shorter = False
        for candidate in _shorter(story):
            tries -= 1
            if candidate.fault(gang_class):
                story, shorter = candidate, True
                break
            if tries <= 0:
                break
    return story


def _shorter(story: Story) -> Iterator[Story]:
    """Simpler ones, the simplest first."""
    faults = story.faults
    if len(faults) > 1:
        yield replace(story, faults=faults[: len(faults) // 2])
        yield replace(story, faults=faults[len(faults) // 2 :])
    for at in range(len(faults)):
        yield replace(story, faults=(*faults[:at], *faults[at + 1 :]))
    there = [number for number in range(story.requests) if number not in story.left_out]
    part = len(there) // 2
    while part:
        for first in range(0, len(there), part):
            gone = frozenset(there[first : first + part])
            if len(gone) < len(there):
                yield replace(story, left_out=story.left_out | gone)
        part //= 2


_DURATION_S = 60.0


def _fleet(seed: int) -> Scenario:
    """A small fleet: unified, or prefill and decode apart, with little room everywhere."""
    stream, gate = Chance(seed)("fleet"), Chance(seed)("gate")
    passes = Linear(step_s=stream.uniform(0.005, 0.05), token_s=stream.uniform(5e-6, 1e-4))

    def model(role: Role) -> GangModel:
        return GangModel(
            role=role,
            ranks=stream.randint(1, 3),
            passes=passes,
            blocks=stream.randint(150, 400),
            block_tokens=_BLOCK,
            sequences_max=stream.randint(2, 12),
            chunk_tokens=stream.choice((128, 512, 2048)),
            stages=stream.choice((1, 1, 2)) if role is Role.UNIFIED else 1,
            scheduling=stream.choice(list(Scheduling)),
            receive_steps=gate.choice((1, 1, 10)),
            align_steps=gate.choice((0, 0, 20)),
            batch_steps=gate.choice((0, 5)),
            guaranteed=gate.random() < 0.3,
            accepted=stream.choice(((), (0.8,), (0.8, 0.6))),
            start_s=stream.uniform(5, 30),
            transfer_base_s=0.005,
            transfer_token_s=stream.uniform(1e-6, 1e-4),
            kv_hold_s=30.0,
        )

    if stream.random() < 0.6:
        pools: tuple[SimPool, ...] = (
            SimPool(model(Role.PREFILL), stream.randint(1, 2)),
            SimPool(model(Role.DECODE), stream.randint(1, 3)),
        )
    else:
        pools = (SimPool(model(Role.UNIFIED), stream.randint(1, 3)),)
    spec = Spec(
        models=(
            ModelSpec(
                "",
                tuple(_pool(pool) for pool in pools),
                "DeepSeek-R1-0528",
                engine=EngineSpec(storage_bytes_per_s=1e9),
                scaling=_scaling(seed, pools),
            ),
        ),
        channel=ChannelSpec(max_requests=stream.randint(4, 32)),
        admission=AdmissionSpec(
            queue_requests_max=stream.randint(4, 64), queue_timeout_s=stream.uniform(20, 600)
        ),
        handoff=HandoffSpec(attempts_max=stream.randint(2, 4), resume_wait_s=60.0),
        fleet=FleetSpec(drain_wait_s=Chance(seed)("drain").choice((0.0, 2.0, 10.0, 120.0))),
    )
    return Scenario(
        pools=pools,
        seed=seed,
        gateways=stream.randint(1, 3),
        kv_events=stream.random() < 0.8,
        path=EventPath(stream.uniform(0, 0.2), stream.uniform(0, 0.1)),
        spec=spec,
        warm=stream.random() < 0.8,
        stall_s=1_800.0,
    )


def _pool(pool: SimPool) -> PoolSpec:
    costs = StepCosts(0.01, 20e-6, step_base_s=0.02, step_request_s=1e-3, stall=1.0)
    return PoolSpec(pool.model.role, pool.replicas, costs=costs, node_weights_bytes=1e9)


def _scaling(seed: int, pools: tuple[SimPool, ...]) -> ScalingSpec | None:
    """In a third of the stories gangs come and go, oftener than anybody would want."""
    stream = Chance(seed)("scaling")
    if stream.random() >= 1 / 3:
        return None
    bounds = tuple(
        PoolScaling(pool.model.role, pool.replicas + stream.randint(0, 2), stream.randint(0, 1))
        for pool in pools
    )
    return ScalingSpec(
        stream.uniform(0.1, 5.0),
        stream.uniform(0.02, 0.1),
        bounds,
        dwell_s=stream.uniform(0, 20),
        idle_s=stream.uniform(5, 60),
        pending_s=10.0,
        period_s=2.0,
    )


def _calls(seed: int, requests: int) -> Iterator[Call]:
    chance = Chance(seed)
    arrivals, lengths, prefixes = (chance(f"calls {name}") for name in ("at", "long", "same"))
    at_s = 0.0
    for number in range(requests):
        prompt = 1 + int(lengths.expovariate(1 / 300))
        output = 1 + int(lengths.expovariate(1 / 80))
        blocks = -(-prompt // 64)
        shared = min(blocks, prefixes.randint(0, 6))
        first = prefixes.randrange(3) * _FAR
        own = (3 + number) * _FAR
        yield Call(
            number,
            at_s,
            prompt,
            output,
            thinking_tokens=output // 2,
            hash_ids=(*range(first, first + shared), *range(own, own + blocks - shared)),
            hash_tokens=64,
            max_tokens=output if lengths.random() < 0.7 else max(1, output // 2),
        )
        at_s += arrivals.expovariate(requests / _DURATION_S)
