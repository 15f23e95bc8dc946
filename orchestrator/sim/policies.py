"""The policies that `bench routing` compares: ours, an oracle, and the usual ones by load alone."""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile

from typing_extensions import override

from orchestrator.core import RankId, Role
from orchestrator.routing import (
    AskReplay,
    Choice,
    KvBatch,
    KvStream,
    Leg,
    Member,
    Prompt,
    Router,
    StepCosts,
    same_costs,
)
from orchestrator.sim.engine import EngineModel, Job, SimEngine
from orchestrator.sim.fleet import Policy


class _Blind:
    """A policy that hears of no events; counts what it has in flight."""

    def __init__(self, engines: Sequence[SimEngine]) -> None:
        self.engines = engines
        self.requests = [0] * len(engines)
        self.tokens = [0] * len(engines)

    def choose(self, job: Job, now: float) -> int:
        rank = self.pick(job, now)
        self.requests[rank] += 1
        self.tokens[rank] += len(job.prompt_ids)
        return rank

    def pick(self, job: Job, now: float) -> int:
        raise NotImplementedError

    def first_token(self, job: Job, now: float) -> None:
        pass

    def ended(self, job: Job, now: float) -> None:
        self.requests[job.rank] -= 1
        self.tokens[job.rank] -= len(job.prompt_ids)

    def batch(self, rank: int, batch: KvBatch, now: float) -> int | None:
        return None

    def replayed(self, rank: int, batches: Sequence[KvBatch], now: float) -> int | None:
        return None


class RoundRobin(_Blind):
    """One after the other."""

    _last = -1

    @override
    def pick(self, job: Job, now: float) -> int:
        self._last = (self._last + 1) % len(self.engines)
        return self._last


class Random(_Blind):
    """Any."""

    def __init__(self, engines: Sequence[SimEngine], seed: int) -> None:
        super().__init__(engines)
        self._chance = random.Random(f"random {seed}")

    @override
    def pick(self, job: Job, now: float) -> int:
        return self._chance.randrange(len(self.engines))


class PowerOfTwo(_Blind):
    """Of two drawn ones that with fewer requests in flight."""

    def __init__(self, engines: Sequence[SimEngine], seed: int) -> None:
        super().__init__(engines)
        self._chance = random.Random(f"power of two {seed}")

    @override
    def pick(self, job: Job, now: float) -> int:
        pair = self._chance.sample(range(len(self.engines)), min(2, len(self.engines)))
        return min(pair, key=lambda rank: (self.requests[rank], rank))


class LeastRequests(_Blind):
    """The one with the fewest requests in flight."""

    @override
    def pick(self, job: Job, now: float) -> int:
        return min(range(len(self.engines)), key=lambda rank: (self.requests[rank], rank))


class LeastTokens(_Blind):
    """The one with the fewest prompt tokens in flight."""

    @override
    def pick(self, job: Job, now: float) -> int:
        return min(range(len(self.engines)), key=lambda rank: (self.tokens[rank], rank))


class Oracle(_Blind):
    """Greedy with perfect knowledge: reads the engines' own caches and queues.

    It minimises the request's own time to first token; ties go to the first engine, which keeps
    others idle for large prompts.
    """

    @override
    def pick(self, job: Job, now: float) -> int:
        tokens = len(job.prompt_ids)

        def cost_s(engine: SimEngine) -> float:
            hit = min(engine.hit_tokens(job.keys), tokens - 1)
            return engine.wait_s(now) + engine.prefill_s(tokens, hit)

        costs = [cost_s(engine) for engine in self.engines]
        return costs.index(min(costs))


class Mirror(_Blind):
    """Greedy over a mirror of each cache that takes every prompt in as it is sent.

    It knows the engines' timing and sizes, but neither their caches nor when they fill.
    """

    def __init__(self, engines: Sequence[SimEngine]) -> None:
        super().__init__(engines)
        self._free_at = [0.0] * len(engines)
        self._caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in engines]

    @override
    def pick(self, job: Job, now: float) -> int:
        model = self.engines[0].model
        tokens = len(job.prompt_ids)
        ends: list[float] = []
        for free_at, cache in zip(self._free_at, self._caches, strict=True):
            hits = sum(1 for _ in takewhile(cache.__contains__, job.keys))
            hit = min(hits * model.block_tokens, tokens - 1)
            ends.append(max(free_at, now) + self.engines[0].prefill_s(tokens, hit))
        rank = ends.index(min(ends))
        self._free_at[rank] = ends[rank]
        cache = self._caches[rank]
        for key in job.keys:
            cache[key] = None
            cache.move_to_end(key)
        while len(cache) > model.blocks:
            cache.popitem(last=False)
        return rank


class Ours:
    """The router that the gateway runs, with KV events or without."""

    def __init__(self, engines: Sequence[SimEngine], *, events: bool, replay: bool = True) -> None:
        model = engines[0].model
        blocks_max = 2 * model.blocks * len(engines)
        self.router = Router(model.block_tokens, blocks_max, same_costs(costs_of(model)))
        self.rank_ids = [RankId(f"r{number:04}/0") for number in range(len(engines))]
        for rank_id in self.rank_ids:
            kv_tokens = model.blocks * model.block_tokens
            member = Member(rank_id, Role.UNIFIED, 1 << 30, model.slots, kv_tokens)
            self.router.join(member, kv_events=events)
        self.streams = [KvStream(replays=replay) for _ in engines]
        self._events = events

    def choose(self, job: Job, now: float) -> int:
        router = self.router
        router.arrived(now)
        prompt = Prompt(job.prompt_ids, 1 << 15)
        decision = router.decide(router.view(self.rank_ids, now), Role.UNIFIED, Leg.WHOLE, prompt)
        assert isinstance(decision.choice, Choice)
        router.sent(str(job.number), decision, prompt, now)
        return self.rank_ids.index(decision.choice.rank_id)

    def first_token(self, job: Job, now: float) -> None:
        self.router.first_token(str(job.number), now, job.cached_tokens)

    def ended(self, job: Job, now: float) -> None:
        self.router.ended(str(job.number), now)
        self.router.ledger.drew(job.output_tokens)

    def batch(self, rank: int, batch: KvBatch, now: float) -> int | None:
        if not self._events:
            return None
        return self._first(self.router.take(self.rank_ids[rank], self.streams[rank].on_live(batch)))

    def replayed(self, rank: int, batches: Sequence[KvBatch], now: float) -> int | None:
        stream = self.streams[rank]
        for batch in batches:
            self.router.take(self.rank_ids[rank], stream.on_replayed(batch))
        return self._first(self.router.take(self.rank_ids[rank], stream.on_replay_end()))

    def _first(self, asked: list[AskReplay]) -> int | None:
        return asked[0].first if asked else None


def costs_of(model: EngineModel) -> StepCosts:
    """The costs of the simulated engine, as a calibration would find them."""
    return StepCosts(
        prefill_base_s=model.prefill_base_s,
        prefill_token_s=model.prefill_token_s,
        step_base_s=model.step_s,
        step_request_s=model.step_request_s,
        stall=model.stall,
    )


POLICIES: dict[str, Callable[[Sequence[SimEngine], int], Policy]] = {
    "oracle": lambda engines, seed: Oracle(engines),
    "mirror": lambda engines, seed: Mirror(engines),
    "kv": lambda engines, seed: Ours(engines, events=True),
    "kv_no_replay": lambda engines, seed: Ours(engines, events=True, replay=False),
    "approx": lambda engines, seed: Ours(engines, events=False),
    "least_tokens": lambda engines, seed: LeastTokens(engines),
    "least_requests": lambda engines, seed: LeastRequests(engines),
    "power_of_two": PowerOfTwo,
    "random": Random,
    "round_robin": lambda engines, seed: RoundRobin(engines),
}
LOAD_ONLY = ("least_tokens", "least_requests", "power_of_two", "random", "round_robin")
