"""A published measurement played again: its fleet, its load, its lengths, in a closed loop."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import assert_never

from orchestrator.core import Role
from orchestrator.perf import ARCHITECTURES, Factors, LayoutGrid, Mode
from orchestrator.perf.cases import Case, Side
from orchestrator.perf.system import efficiency
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.meter import Meter
from orchestrator.sim.models import chances_of, first_token_s, gang_model
from orchestrator.sim.pools import SimPool
from orchestrator.sim.recipes import SEQUENCES_MAX, recipe_of
from orchestrator.sim.sources import ClosedLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import AdmissionSpec, ChannelSpec, HandoffSpec, ModelSpec, PoolSpec, Spec

ROUNDS = 10  # requests for each that is in flight: InferenceX's benchmark scripts
_REQUESTS_ENOUGH = 2_000  # beyond so many, fewer rounds do
_ROUNDS_LEAST = 2
_CHUNKS_FIT = 4  # prefill chunks whose KV has room on a rank that was measured
_TAIL_SIGMA = math.sqrt(2 * math.log(1_527 / 792))
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the simulated fleet did."""

    metrics: Mapping[str, float]  # named and measured as in `Case.measured`
    requests: int


def replay_case(case: Case, factors: Factors, seed: int = 0) -> Replayed:
    """Plays the case's own load on the case's own fleet."""
    match case.mode:
        case Mode.UNIFIED:
            return _served(case, (_pool(case, case.side, Role.UNIFIED, factors),), factors, seed)
        case Mode.DISAGGREGATED:
            assert case.prefill is not None
            pools = (
                _pool(case, case.prefill, Role.PREFILL, factors),
                _pool(case, case.side, Role.DECODE, factors),
            )
            return _served(case, pools, factors, seed)
        case Mode.PREFILL:
            return _prefilled(case, factors, seed)
        case Mode.DECODE:
            return _decoded(case, factors)
        case _:
            assert_never(case.mode)


def _pool(case: Case, side: Side, role: Role, factors: Factors) -> SimPool:
    drafts, recipe = side.layout.mtp_drafts, recipe_of(case)
    side = replace(side, layout=replace(side.layout, chunk_tokens=recipe.chunk_tokens))
    accepted = None
    if drafts and case.accept_tokens is not None:
        accepted = chances_of(drafts, case.accept_tokens)
    model = gang_model(
        role,
        _grid(case, side),
        sequences_max=recipe.sequences_max,
        balance=case.balance,
        factors=factors,
        accepted=accepted,
    )
    # What was measured did fit, whatever the ledger of bytes, which errs to the large side, says.
    least = _CHUNKS_FIT * model.chunk_tokens // model.block_tokens
    model = replace(
        model,
        blocks=max(model.blocks, least),
        receive_steps=recipe.receive_steps,
        align_steps=recipe.align_steps,
        batch_steps=recipe.batch_steps,
    )
    return SimPool(model, max(1, round(side.gangs)))


def _grid(case: Case, side: Side) -> LayoutGrid:
    return LayoutGrid.of(
        [side.layout],
        ARCHITECTURES["DeepSeek-R1"],
        case.gpu,
        case.precision,
        case.engine,
        case.fabric,
    )


class Lengths:
    """Prompts and outputs as the measurement drew them, each from a stream of its own."""

    def __init__(self, case: Case, seed: int) -> None:
        chance = Chance(seed)
        self._case = case
        self._inputs = chance("inputs")
        self._outputs = chance("outputs")
        if case.tail_tokens:
            self._prompts = _Tail(case.input_tokens, case.tail_tokens)
            self._answers = _Tail(case.output_tokens, case.tail_tokens)

    def draw(self) -> tuple[int, int]:
        """Prompt and output tokens of one request."""
        case = self._case
        if case.tail_tokens:
            return self._prompts.draw(self._inputs), self._answers.draw(self._outputs)
        if case.random_lengths:  # their means are 0.9 of the nominal lengths
            return tuple(  # type: ignore[return-value]  # two of them
                max(1, round(mean / 0.9 * stream.uniform(0.8, 1.0)))
                for mean, stream in (
                    (case.input_tokens, self._inputs),
                    (case.output_tokens, self._outputs),
                )
            )
        return max(1, round(case.input_tokens)), max(1, round(case.output_tokens))


class _Tail:
    """A lognormal distribution, cut at the longest; its mean behind the cut is the one asked for.

    The spread is that of R1's outputs in production: 1,527 tokens on average and 792 in the middle
    (ServeGen's day).
    """

    def __init__(self, mean: float, most: int) -> None:
        self._most = most
        low, high = math.log(max(mean, 2.0)) - 4.0, math.log(max(mean, 2.0)) + 4.0
        for _ in range(40):
            self._middle = (low + high) / 2
            short = self._mean() < min(mean, 0.9 * most)
            low, high = (self._middle, high) if short else (low, self._middle)

    def _mean(self) -> float:
        """Of the distribution with what is beyond the cut put at the cut."""
        cut = (math.log(self._most) - self._middle) / _TAIL_SIGMA
        below = math.exp(self._middle + _TAIL_SIGMA**2 / 2) * _NORMAL.cdf(cut - _TAIL_SIGMA)
        return below + self._most * (1 - _NORMAL.cdf(cut))

    def draw(self, chance: random.Random) -> int:
        """One length, at least 1."""
        return max(1, round(min(chance.lognormvariate(self._middle, _TAIL_SIGMA), self._most)))


def _run(
    pools: tuple[SimPool, ...],
    lengths: Lengths,
    concurrency: int,
    total: int,
    overhead_s: float,
    seed: int,
) -> tuple[Meter, World]:
    def make(number: int) -> Call:
        prompt, output = lengths.draw()
        return Call(number, 0.0, prompt, output, max_tokens=1 << 20)

    model = ModelSpec(
        "", tuple(PoolSpec(pool.model.role, pool.replicas) for pool in pools), "DeepSeek-R1"
    )
    # nothing of ours may bound what the measurement did not
    spec = Spec(
        models=(model,),
        channel=ChannelSpec(max_requests=1 << 20),
        admission=AdmissionSpec(queue_requests_max=1 << 20, queue_timeout_s=1e9),
        handoff=HandoffSpec(),
    )
    scenario = Scenario(
        pools, seed=seed, kv_events=False, spec=spec, overhead_s=overhead_s, stall_s=1e9
    )
    world = World(scenario)
    return world.run(ClosedLoop(make, concurrency, total)), world


def _served(case: Case, pools: tuple[SimPool, ...], factors: Factors, seed: int) -> Replayed:
    concurrency = max(1, round(case.concurrency))
    total = max(_ROUNDS_LEAST * concurrency, min(ROUNDS * concurrency, _REQUESTS_ENOUGH))
    if case.max_throughput:
        concurrency = total = case.requests or concurrency
        if len(pools) == 1:  # equal gangs, and as many requests for each: one tells for all
            gangs = pools[0].replicas
            pools = (replace(pools[0], replicas=1),)
            concurrency = total = max(1, total // gangs)
    overhead_s = first_token_s(efficiency(_grid(case, case.side), factors))
    meter, _ = _run(pools, Lengths(case, seed), concurrency, total, overhead_s, seed)
    gpus = sum(pool.model.gpus * pool.replicas for pool in pools)
    lasted_s = meter.last_end_at - 0.5
    ttft, tpot = meter.ttft.mean, meter.tpot.mean
    return Replayed(
        {
            "tpot": tpot,
            "ttft": ttft,
            # by Little's law, as of the measurement
            "rate": concurrency / (ttft + (case.output_tokens - 1) * tpot),
            "output_tokens": meter.output_tokens / lasted_s / gpus,
            "total_tokens": (meter.output_tokens + meter.prompt_tokens) / lasted_s / gpus,
        },
        total,
    )


def _prefilled(case: Case, factors: Factors, seed: int) -> Replayed:
    """Prompts only, as many as keep every rank busy."""
    pool = _pool(case, case.side, Role.UNIFIED, factors)
    model = pool.model
    each = max(1, math.ceil(2 * model.chunk_tokens / max(case.input_tokens, 1)))
    concurrency = each * model.ranks * pool.replicas
    one = replace(case, output_tokens=1.0)
    meter, _ = _run((pool,), Lengths(one, seed), concurrency, 8 * concurrency, 0.0, seed)
    alone, _ = _run((pool,), Lengths(one, seed), 1, 4, 0.0, seed)
    gpus = model.gpus * pool.replicas
    overhead_s = first_token_s(efficiency(_grid(case, case.side), factors))
    return Replayed(
        {
            "input_tokens": meter.prompt_tokens / (meter.last_end_at - 0.5) / gpus,
            "ttft": alone.ttft.mean + overhead_s,
        },
        8 * concurrency,
    )


def _decoded(case: Case, factors: Factors) -> Replayed:
    """One step of a full batch on every rank: nothing is left to chance, so it is not played."""
    model = _pool(case, case.side, Role.DECODE, factors).model
    context = case.input_tokens + case.output_tokens / 2
    room = int(model.blocks * model.block_tokens / max(context, 1.0))
    batch = round(case.concurrency) if case.concurrency else min(room, SEQUENCES_MAX)
    batch = max(1, min(batch, model.sequences_max))
    gained = 1.0
    for at in range(len(model.accepted)):
        gained += math.prod(model.accepted[: at + 1])
    step_s = model.passes.decode_s(batch, batch * model.ranks, batch * context)
    tpot = step_s / gained
    return Replayed({"tpot": tpot, "output_tokens": batch / tpot / (model.gpus / model.ranks)}, 0)
