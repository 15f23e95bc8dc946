"""What is measured of a model's pools at one gateway: ranks, features, time held and busy."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.engines import EngineInfo, EngineLoad
from orchestrator.gateway.measures import Measures
from orchestrator.perf import ARCHITECTURES, HARDWARE, Weight
from orchestrator.perf.precision import peak_flops
from orchestrator.spec import EngineKind, ModelSpec, PoolSpec, Spec
from orchestrator.telemetry import Metrics, metrics
from orchestrator.telemetry.metrics.labels import Feature, Transfer

_FLOPS_PER_PARAMETER = 2  # a multiplication and an addition
_TRANSFERS_MIN = 3  # of which something can be said
_GAP_S_MAX = 60.0  # between two ticks of a loop that lives


@dataclass(frozen=True, slots=True)
class RankSeen:
    """One rank that is open, as this gateway knows it."""

    rank_id: str
    role: Role
    gang: str
    load: EngineLoad | None
    info: EngineInfo | None
    kv_events: bool  # they feed the index


class PoolMeasures:
    """Of one model."""

    def __init__(self, counted: Metrics, spec: Spec, model: ModelSpec, requests: Measures) -> None:
        self._counted = counted
        self._spec = spec
        self._model = model
        self._requests = requests
        self._ticked_at: float | None = None
        self._facts()

    def tick(self, ranks: Sequence[RankSeen], now: float) -> None:
        """Time has passed, in which the ranks were held, and busy if they had requests."""
        before, self._ticked_at = self._ticked_at, now
        if before is None:
            return
        passed_s = min(now - before, _GAP_S_MAX)
        held: dict[Role, int] = {}
        busy: dict[Role, int] = {}
        for rank in ranks:
            held[rank.role] = held.get(rank.role, 0) + 1
            if rank.load is not None and rank.load.running + rank.load.waiting > 0:
                busy[rank.role] = busy.get(rank.role, 0) + 1
        name = self._model.name
        for role, number in held.items():
            self._counted.count(metrics.RANK_HELD, number * passed_s, name, role)
            self._counted.count(metrics.RANK_BUSY, busy.get(role, 0) * passed_s, name, role)

    def look(self, ranks: Sequence[RankSeen]) -> None:
        """Sets what only the moment knows."""
        name = self._model.name
        for metric in (metrics.RANK_LOAD, metrics.RANK_KV, metrics.RANK_STEPS):
            self._counted.forget(metric, name)
        for rank in ranks:
            if (load := rank.load) is not None:
                where = (name, rank.role, rank.rank_id)
                self._counted.set(metrics.RANK_LOAD, load.running, *where)
                self._counted.set(metrics.RANK_KV, load.kv_usage, *where)
                self._counted.set(metrics.RANK_STEPS, load.steps, *where)
        for pool in self._model.pools:
            of_pool = [rank for rank in ranks if rank.role is pool.role]
            self._counted.set(metrics.RANKS, len(of_pool), name, pool.role)
            gangs = {rank.gang for rank in of_pool}
            self._counted.set(metrics.POOL_GPUS, len(gangs) * pool.gang.gpus, name, pool.role)
            self._peaks(pool, len(gangs) * pool.gang.gpus)
            self._predict(pool, of_pool)
        events = sum(rank.kv_events for rank in ranks)
        self._counted.set(metrics.KV_RANKS, events, name)
        self._counted.forget(metrics.FEATURE, name)
        for feature, active in self._features(ranks).items():
            self._counted.set(metrics.FEATURE, active, name, feature)

    def _features(self, ranks: Sequence[RankSeen]) -> dict[Feature, bool]:
        """Those that are asked for, of which something was seen."""
        found: dict[Feature, bool] = {}
        if not ranks:
            return found
        if self._model.pool(Role.PREFILL) is not None:
            recent = self._requests.recent
            moved = recent.count(Transfer.MOVED)
            if not any(rank.role is Role.PREFILL for rank in ranks):
                found[Feature.DISAGGREGATION] = False
            elif len(recent) >= _TRANSFERS_MIN:
                found[Feature.DISAGGREGATION] = 2 * moved > len(recent)
        if self._model.engine.kind is EngineKind.VLLM:
            found[Feature.KV_EVENTS] = all(rank.kv_events for rank in ranks)
        thinking = self._spec.thinking
        if thinking.soft_tokens is not None or thinking.levels:
            decode = [rank for rank in ranks if rank.role is not Role.PREFILL]
            told = [rank.info.grammar for rank in decode if rank.info is not None]
            if told:
                found[Feature.THINKING_BUDGET] = all(told)
        return found

    def _predict(self, pool: PoolSpec, ranks: Sequence[RankSeen]) -> None:
        busy = [rank.load.running for rank in ranks if rank.load is not None and rank.load.running]
        if pool.costs is not None and busy:
            step_s = pool.costs.step_s(sum(busy) / len(busy), 0.0)
            self._counted.set(metrics.STEP_PREDICTED, step_s, self._model.name, pool.role)

    # --- what spec and perf say ----------------------------------------------------------------

    def _facts(self) -> None:
        spec, model = self._spec, self._model
        if spec.telemetry.gpu_hour_price is not None:
            self._counted.set(metrics.GPU_PRICE, float(spec.telemetry.gpu_hour_price))
        if model.scaling is None:
            for pool in model.pools:
                planned = pool.replicas * pool.gang.data_parallel
                self._counted.set(metrics.RANKS_PLANNED, planned, model.name, pool.role)
        if (architecture := ARCHITECTURES.get(model.name)) is None:
            return
        flops = _FLOPS_PER_PARAMETER * architecture.active_params(with_embedding=False)
        self._counted.set(metrics.TOKEN_FLOPS, flops, model.name)
        weights_bytes = architecture.checkpoint_bytes(Weight.FP8)
        for pool in model.pools:
            of_rank = weights_bytes / pool.gang.data_parallel
            self._counted.set(metrics.STEP_BYTES, of_rank, model.name, pool.role)

    def _peaks(self, pool: PoolSpec, gpus: int) -> None:
        if (gpu := HARDWARE.get(self._spec.telemetry.gpu or "")) is None:
            return
        where = (self._model.name, pool.role)
        peak = peak_flops(gpu, Weight.FP8)
        self._counted.set(metrics.PEAK_FLOPS, gpus * peak, *where)
        self._counted.set(metrics.PEAK_BANDWIDTH, gpus * gpu.bandwidth, *where)
