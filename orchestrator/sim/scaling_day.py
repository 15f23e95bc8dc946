"""The fleet that days of load are played on, and what a policy of scaling comes to on one."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.scaling import Plan, plan_of
from orchestrator.scaling.capacity import decode_gangs, prefill_gangs
from orchestrator.scaling.observation import Observation
from orchestrator.sim.day import OUTPUT_TOKENS, PROMPT_TOKENS, Day
from orchestrator.sim.job import GangModel
from orchestrator.sim.meter import Bounds
from orchestrator.sim.pools import SimPool
from orchestrator.sim.scaler import Policy
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

_PASSES = Linear(base_s=0.05, token_s=1e-2, step_s=0.02, request_s=1e-3)
_GANGS_MAX = 40
_STORAGE_BYTES_PER_S = 5e9
_NODE_WEIGHTS_BYTES = 0.7e12  # R1's in FP8, on one node of eight GPUs
_LOOK_S = 60.0  # between two looks at what the GPUs are held for
_SETTLED_S = 1.0  # when the first request may come


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
    """What a policy came to. GPU-hours are those within the day: requests that end behind it are
    no reason to keep a fleet.
    """

    requests: int
    kept: int  # within the SLO
    gpu_hours: float
    starting_gpu_hours: float  # of them, by gangs that loaded weights; looked at once a minute
    ending_gpu_hours: float  # by gangs that were let go and ended what they had
    prefill_gpu_hours: float
    changes: int  # of a pool's target

    @property
    def attainment(self) -> float:
        """Share of the requests within the SLO."""
        return self.kept / max(self.requests, 1)


def play(
    day: Day,
    policy: Policy | None = None,
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
    bill = _Bill(world, day.lasts_s)
    scores = world.run(OpenLoop(day.calls(rate))).classes.values()
    bill.close(world.agenda.now)
    return Score(
        sum(score.ended for score in scores),
        sum(score.kept for score in scores),
        sum(bill.held_s.values()) / 3600,
        bill.starting_s / 3600,
        bill.ending_s / 3600,
        bill.held_s[Role.PREFILL.value] / 3600,
        changes[0],
    )


class _Bill:
    """GPU-seconds of one day."""

    def __init__(self, world: World, lasts_s: float) -> None:
        self.held_s: dict[str, float] = {}
        self.starting_s = 0.0
        self.ending_s = 0.0
        self._world = world
        self._until = lasts_s
        world.agenda.at(_SETTLED_S, self._look)
        world.agenda.at(lasts_s, self.close)

    def _look(self, now: float) -> None:
        for slot in self._world.pools.slots:
            gpu_s = slot.model.gpus * _LOOK_S
            if slot.retired:
                self.ending_s += gpu_s
            elif not slot.ready and not slot.pending:
                self.starting_s += gpu_s
        if now + _LOOK_S < self._until:
            self._world.agenda.at(now + _LOOK_S, self._look)

    def close(self, now: float) -> None:
        """The day is over, or its last request."""
        self.held_s = self.held_s or self._world.pools.held_gpu_s(now)


def needed(spec: Spec, per_s: float) -> dict[Role, int]:
    """Gangs for a rate of the day's mean request."""
    plan = plan_of(spec, spec.models[0])
    seen = mean_request(plan)
    prefill, decode = plan.pools[Role.PREFILL], plan.pools[Role.DECODE]
    decoding = max(1, decode_gangs(decode, plan.slo, seen, per_s))
    return {
        Role.PREFILL: max(
            1, prefill_gangs(prefill, plan.slo, seen, per_s, decoding=decoding * decode.ranks)
        ),
        Role.DECODE: decoding,
    }


def mean_request(plan: Plan) -> Observation:
    """The day's, as gateways would measure it. Lengths vary by half: the mean of the squares is a
    quarter more than the square of the mean.
    """
    cost_s = plan.pools[Role.PREFILL].costs.prefill_s(int(PROMPT_TOKENS), 0)
    return Observation(
        prefill_s=cost_s,
        prefill_s2=1.25 * cost_s * cost_s,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
    )
