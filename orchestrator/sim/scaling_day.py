"""A day whose load comes and goes, for policies of scaling: the fleet, its requests, what hindsight
would have paid, and a policy that looks at utilisation alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core import Role
from orchestrator.scaling import Decision, Plan, Reason, Seen, Target, plan_of
from orchestrator.scaling.capacity import decode_gangs, prefill_gangs
from orchestrator.scaling.observation import Observation
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.job import GangModel
from orchestrator.sim.meter import Bounds
from orchestrator.sim.pools import SimPool
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario, World
from orchestrator.spec import (
    AdmissionSpec,
    EngineSpec,
    GangSpec,
    ModelSpec,
    PoolScaling,
    PoolSpec,
    ScalingSpec,
    Spec,
    StepCosts,
)

DAY_S = 86_400.0
_PASSES = Linear(base_s=0.05, token_s=1e-2, step_s=0.02, request_s=1e-3)
_PROMPT_TOKENS = 200.0  # few, and slow: it is the seconds that count
_OUTPUT_TOKENS = 8_000.0  # a long thought
_GANGS_MAX = 40
_STORAGE_BYTES_PER_S = 5e9
_NODE_WEIGHTS_BYTES = 0.7e12  # R1's in FP8, on one node of eight GPUs
_SLOT_S = 60.0  # of hindsight


@dataclass(frozen=True, slots=True)
class Day:
    """A load between `least` and `most` requests a second, once up and down within `lasts_s`."""

    most: float = 0.75
    least: float = 0.11
    lasts_s: float = DAY_S
    seed: int = 0

    def per_s(self, at: float) -> float:
        """The rate at an instant: least at the beginning and the end."""
        share = math.sin(math.pi * at / self.lasts_s) ** 2
        return self.least + (self.most - self.least) * share

    def calls(self, rate: Callable[[float], float] | None = None) -> Iterator[Call]:
        """Independent arrivals at `rate`, which is at most `most`; lengths vary by half."""
        rate = rate or self.per_s
        chance = Chance(self.seed)
        arrivals, lengths = chance("day arrivals"), chance("day lengths")
        at, number = 0.0, 0
        while True:
            at += arrivals.expovariate(self.most)
            if at >= self.lasts_s:
                return
            if arrivals.random() * self.most >= rate(at):
                continue
            prompt, output = (
                max(1, int(lengths.gammavariate(4.0, mean / 4.0)))
                for mean in (_PROMPT_TOKENS, _OUTPUT_TOKENS)
            )
            yield Call(number, at, prompt, output, max_tokens=max(32_768, output))
            number += 1


def spec_of(slo: ScalingSpec | None = None) -> Spec:
    """One model, prefill and decode apart, one node a gang. Scaled by default."""
    costs = StepCosts(
        prefill_base_s=_PASSES.base_s,
        prefill_token_s=_PASSES.token_s,
        step_base_s=_PASSES.step_s,
        step_request_s=_PASSES.request_s,
        step_token_s=1e-8,
        stall=1.0,
        transfer_base_s=0.005,
        transfer_token_s=2e-6,
    )
    pools = tuple(
        PoolSpec(role, 1, GangSpec(tensor_parallel=8), None, (), costs, _NODE_WEIGHTS_BYTES)
        for role in (Role.PREFILL, Role.DECODE)
    )
    bounds = tuple(PoolScaling(pool.role, _GANGS_MAX) for pool in pools)
    model = ModelSpec(
        "",
        pools,
        engine=EngineSpec(storage_bytes_per_s=_STORAGE_BYTES_PER_S),
        scaling=slo or ScalingSpec(ttft_s=10.0, tpot_s=0.05, pools=bounds),
    )
    return Spec(models=(model,), admission=AdmissionSpec(queue_requests_max=10_000))


def scenario_of(spec: Spec, gangs: dict[Role, int], seed: int) -> Scenario:
    """The fleet of the day, with so many gangs at its beginning."""
    plan = plan_of(spec, spec.models[0])
    slo = plan.spec
    models = {
        role: GangModel(
            role=role,
            ranks=1,
            passes=_PASSES,
            blocks=40_000,
            block_tokens=64,
            sequences_max=128,
            start_s=facts.start_s,
            transfer_base_s=0.005,
            transfer_token_s=2e-6,
        )
        for role, facts in plan.pools.items()
    }
    return Scenario(
        pools=tuple(SimPool(model, gangs[role]) for role, model in models.items()),
        seed=seed,
        kv_events=False,
        spec=spec,
        costs=plan.pools[Role.DECODE].costs,
        bounds={"": Bounds(slo.ttft_s, slo.tpot_s)},
    )


@dataclass(frozen=True, slots=True)
class Score:
    """What a policy came to."""

    requests: int
    kept: int  # within the SLO
    gpu_hours: float
    changes: int  # of a pool's target
    worlds_end_s: float

    @property
    def attainment(self) -> float:
        """Share of the requests within the SLO."""
        return self.kept / max(self.requests, 1)


def play(
    day: Day,
    policy: "Utilisation | None" = None,
    fixed: dict[Role, int] | None = None,
    rate: Callable[[float], float] | None = None,
    spec: Spec | None = None,
) -> Score:
    """The day by production's policy, by another, or by a fleet that stays as it is."""
    spec = spec or spec_of()
    start = fixed or needed(spec, day.per_s(0.0) if rate is None else rate(0.0))
    world = World(scenario_of(spec, start, day.seed))
    if policy is not None or fixed is not None:
        world.scaling = policy
    changes = [0]

    def brief(at: float, event: str, fields: dict[str, object]) -> None:
        changes[0] += event == "scaling" and fields["decision"] != fields["gangs"]

    world.brief = brief
    meter = world.run(OpenLoop(day.calls(rate)))
    scores = meter.classes.values()
    return Score(
        sum(score.ended for score in scores),
        sum(score.kept for score in scores),
        sum(meter.held_s.values()) / 3600,
        changes[0],
        meter.last_end_at,
    )


def needed(spec: Spec, per_s: float) -> dict[Role, int]:
    """Gangs for a rate of the day's mean request."""
    plan = plan_of(spec, spec.models[0])
    seen = _mean_request(plan)
    prefill, decode = plan.pools[Role.PREFILL], plan.pools[Role.DECODE]
    return {
        Role.PREFILL: max(1, prefill_gangs(prefill, plan.slo, seen, per_s)),
        Role.DECODE: max(1, decode_gangs(decode, plan.slo, seen, per_s)),
    }


def _mean_request(plan: Plan) -> Observation:
    cost_s = plan.pools[Role.PREFILL].costs.prefill_s(int(_PROMPT_TOKENS), 0)
    return Observation(
        prefill_s=cost_s,
        prefill_s2=1.25 * cost_s * cost_s,
        prompt_tokens=_PROMPT_TOKENS,
        output_tokens=_OUTPUT_TOKENS,
    )


# --- hindsight -----------------------------------------------------------------------------------


def hindsight_gpu_hours(needs: Sequence[int], slot_s: float, start_s: float, gpus: int) -> float:
    """The least that whole gangs cost if every need were known beforehand.

    `needs` are gangs in slots of time. A gang is paid for while it starts, and kept over a gap
    that is shorter than a start; the cheapest fleet is that for each level by itself.
    """
    paid_s = 0.0
    for level in range(max(needs, default=0)):
        last: int | None = None
        for at, need in enumerate(needs):
            if need <= level:
                continue
            if last is None:
                paid_s += start_s if at else 0.0  # the first fleet is there
            else:
                paid_s += min((at - last - 1) * slot_s, start_s)
            paid_s += slot_s
            last = at
    return paid_s * gpus / 3600


def optimum_gpu_hours(day: Day, spec: Spec | None = None) -> float:
    """Hindsight's for the requests that came: in each slot the gangs that hold what is in decode
    at a full batch, and prefill gangs for the prompts of it.
    """
    plan = plan_of(spec or spec_of(), (spec or spec_of()).models[0])
    mean = _mean_request(plan)
    slots = math.ceil(day.lasts_s / _SLOT_S)
    held, work = [0.0] * (slots + 60), [0.0] * (slots + 60)
    for call in day.calls():
        begins, slot = call.at_s, int(call.at_s / _SLOT_S)
        work[slot] += plan.pools[Role.PREFILL].costs.prefill_s(call.prompt_tokens, 0)
        ends = begins + call.output_tokens * plan.slo.tpot_s
        last = min(int(ends / _SLOT_S), len(held) - 1)
        for at in range(slot, last + 1):
            inside = min(ends, (at + 1) * _SLOT_S) - max(begins, at * _SLOT_S)
            held[at] += inside / _SLOT_S
    decode, prefill = plan.pools[Role.DECODE], plan.pools[Role.PREFILL]
    batch = math.floor((plan.slo.tpot_s - _PASSES.step_s) / _PASSES.request_s)
    needs = {
        Role.DECODE: [max(1, math.ceil(each / (decode.ranks * batch))) for each in held[:slots]],
        Role.PREFILL: [
            max(1, prefill_gangs(prefill, plan.slo, mean, each / _SLOT_S / mean.prefill_s))
            for each in work[:slots]
        ],
    }
    return sum(
        hindsight_gpu_hours(needs[role], _SLOT_S, facts.start_s, facts.gpus)
        for role, facts in plan.pools.items()
    )


# --- a policy that looks at utilisation alone ----------------------------------------------------


class Utilisation:
    """Each pool by itself: requests that are held over what its gangs can hold, as an autoscaler of
    Kubernetes or Serve's own sees it; up at once, down by the most of the last minutes.
    """

    def __init__(self, plan: Plan, share: float = 0.7, down_s: float = 300.0) -> None:
        """`share` is the utilisation that it aims at, `down_s` Kubernetes' stabilisation window."""
        self._plan = plan
        self._share = share
        self._down_s = down_s
        self._wants: dict[Role, list[tuple[float, int]]] = {role: [] for role in plan.pools}

    def decide(self, seen: Seen, now: float) -> Decision:
        """The targets of all pools."""
        targets = []
        load, slo = seen.load, self._plan.slo
        for role, facts in sorted(self._plan.pools.items()):
            if role is Role.DECODE:
                room = math.floor(
                    (slo.tpot_s - facts.costs.step_base_s) / facts.costs.step_request_s
                )
                used = load.running / (room * facts.ranks)
            else:
                used = load.requests_per_s * load.prefill_s / facts.ranks
            want = max(1, math.ceil(used / self._share))
            kept = [(at, n) for at, n in self._wants[role] if at > now - self._down_s]
            self._wants[role] = [*kept, (now, want)]
            asked = seen.pools[role].asked
            gangs = want if want > asked else min(asked, max(n for _, n in self._wants[role]))
            reason = Reason.STEADY if gangs == asked else Reason.LOAD
            targets.append(Target(role, gangs, reason, want))
        return Decision(tuple(targets), load.requests_per_s, slo_kept=True)


def shorter(day: Day, share: float) -> Day:
    """The same day in less time."""
    return replace(day, lasts_s=day.lasts_s * share)
