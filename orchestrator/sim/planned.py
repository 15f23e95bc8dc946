"""From a plan to what is simulated: its pools with the numbers of `perf`, its SLO, its price."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core import SpecError
from orchestrator.perf import (
    ARCHITECTURES,
    HARDWARE,
    EngineFamily,
    Gpu,
    Kv,
    Layout,
    LayoutGrid,
    Precision,
    Weight,
    cold_start_s,
    ledger,
    shipped_factors,
)
from orchestrator.perf.system import efficiency
from orchestrator.sim.chance import Chance
from orchestrator.sim.job import GangModel
from orchestrator.sim.meter import Bounds
from orchestrator.sim.models import SEQUENCES_MAX, first_token_s, gang_model, luck_of
from orchestrator.sim.pools import SimPool
from orchestrator.spec import Fabric, KvHandoff, PoolSpec, Spec, flag_value

STORAGE_BYTES_PER_S = (
    5e9  # that a node reads weights with: one fast NVMe drive, or its share of more
)
_CHUNK_TOKENS = 8192  # vLLM's --max-num-batched-tokens where nobody sets it


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan says of the fleet that is simulated."""

    spec: Spec
    pools: tuple[SimPool, ...]
    bounds: Bounds
    price_per_gpu_hour: float | None
    gpu: str
    overhead_s: float
    workload: str  # as the plan's command named it, or ""
    requests_per_s: float | None
    grids: tuple[LayoutGrid, ...]  # of one layout, a pool

    @property
    def gpus(self) -> int:
        """Of the whole fleet."""
        return sum(pool.model.gpus * pool.replicas for pool in self.pools)


def planned(
    spec: Spec,
    asked: Mapping[str, object],
    origin: str,
    seed: int,
    engine: EngineFamily = EngineFamily.VLLM,
    storage_bytes_per_s: float | None = None,
) -> Planned:
    """The plan whose values have this spec and this `plan.asked`. Raises SpecError."""
    if spec.handoff.kv is not KvHandoff.PULL:
        raise SpecError(
            f"{origin}: the simulator moves KV by pulls only, not by {spec.handoff.kv}",
            "leave spec.handoff.kv at pull",
        )
    model = spec.models[0]
    gpu = HARDWARE.get(str(asked.get("gpu")))
    if gpu is None or model.name not in ARCHITECTURES:
        raise SpecError(
            f"{origin}: its `plan.asked` names no GPU that is known",
            "write one with `r1-serve plan --format values`",
        )
    weight = Weight(str(asked.get("weights", Weight.FP8)))
    fabric = Fabric(str(asked.get("fabric", Fabric.RDMA)))
    pools, grids = [], []
    for pool in model.pools:
        grid, sequences = _grid(pool, model.name, gpu, weight, fabric, engine)
        if not bool(ledger(grid).fits.all()):
            raise SpecError(
                f"{origin}: the {pool.role} gang does not fit on {grid.gpus.flat[0]:.0f} x "
                f"{gpu.name}",
                "plan anew with `r1-serve plan`",
            )
        rate = storage_bytes_per_s or model.engine.storage_bytes_per_s or STORAGE_BYTES_PER_S
        start_s = float(cold_start_s(grid, rate).flat[0])
        ranks = int((grid.dp * grid.tp).flat[0]) if pool.gang.expert_parallel else 1
        luck = luck_of(ranks, Chance(seed)(f"experts {pool.role.value}").gauss)
        found: GangModel = gang_model(
            pool.role, grid, sequences_max=sequences, start_s=start_s, luck=luck
        )
        pools.append(SimPool(found, pool.replicas))
        grids.append(grid)
    slo = asked.get("slo")
    slo = slo if isinstance(slo, Mapping) else {}
    workload = asked.get("workload")
    workload = workload if isinstance(workload, Mapping) else {}
    return Planned(
        spec,
        tuple(pools),
        Bounds(_number(slo.get("ttft_s")), _number(slo.get("itl_s"))),
        _number(asked.get("usd_per_gpu_hour")),
        gpu.name,
        first_token_s(efficiency(grids[-1], shipped_factors())),
        str(workload.get("name", "")),
        _number(workload.get("requests_per_s")),
        tuple(grids),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _grid(
    pool: PoolSpec, model: str, gpu: Gpu, weight: Weight, fabric: Fabric, engine: EngineFamily
) -> tuple[LayoutGrid, int]:
    """The pool's gang as a grid of one layout, and the sequences that a rank runs at most."""
    flags = pool.args
    gang = pool.gang
    speculative = json.loads(flag_value(flags, "--speculative-config") or "{}")
    balance = json.loads(flag_value(flags, "--eplb-config") or "{}")
    layout = Layout(
        tp=gang.tensor_parallel,
        pp=gang.pipeline_parallel,
        dp=gang.data_parallel,
        ep=gang.tensor_parallel * gang.data_parallel if gang.expert_parallel else 1,
        redundant_experts=int(balance.get("num_redundant_experts", 0)),
        mtp_drafts=int(speculative.get("num_speculative_tokens", 0)),
        overlap="--enable-dbo" in flags,
        chunk_tokens=int(flag_value(flags, "--max-num-batched-tokens") or _CHUNK_TOKENS),
    )
    kv = Kv.FP8 if flag_value(flags, "--kv-cache-dtype").startswith("fp8") else Kv.BF16
    dense = Weight.FP8 if weight is Weight.NVFP4 else weight
    grid = LayoutGrid.of(
        [layout], ARCHITECTURES[model], gpu, Precision(weight, dense, kv), engine, fabric
    )
    return grid, int(flag_value(flags, "--max-num-seqs") or SEQUENCES_MAX)
