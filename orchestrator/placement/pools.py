"""From a fleet to the pools of a spec that runs it, with the engine's flags."""

import json
import math

from orchestrator.core import Role
from orchestrator.perf import EngineFamily, Kv, node_weights_bytes, rank_costs
from orchestrator.placement.asked import Asked
from orchestrator.placement.fleets import Crew, traffic_of
from orchestrator.placement.legality import grid_of
from orchestrator.placement.search import Forecast
from orchestrator.placement.wide_ep import (
    OVERLAPPING,
    WideEp,
    balance_of,
    exchange_of,
    graph_flags,
    sglang_flags,
)
from orchestrator.spec import GangSpec, PoolSpec

_SHORTER = 4  # than the mean: how much shorter than it prompts may all be and still fill a step


def pools_of(asked: Asked, forecast: Forecast) -> tuple[PoolSpec, ...]:
    """One pool a crew, in their order; a pool's node group is named after its role.

    What its ranks cost is predicted around the workload's mean lengths and the largest batch.
    """
    drafts = max(crew.shape.layout.mtp_drafts for crew in forecast.fleet.crews)
    return tuple(
        PoolSpec(
            role=crew.shape.role,
            replicas=crew.gangs,
            gang=gang_of(asked, crew),
            node_group=crew.shape.role.value,
            args=_flags(asked, crew, forecast, drafts),
            costs=rank_costs(grid, traffic_of(asked), forecast.batch_most),
            node_weights_bytes=round(float(node_weights_bytes(grid).flat[0])),
        )
        for crew in forecast.fleet.crews
        for grid in [grid_of(asked, [crew.shape])]
    )


def gang_of(asked: Asked, crew: Crew) -> GangSpec:
    """The gang of a crew's shape."""
    layout = crew.shape.layout
    return GangSpec(
        tensor_parallel=layout.tp,
        pipeline_parallel=layout.pp,
        data_parallel=layout.dp,
        expert_parallel=layout.ep > 1,
        nodes=crew.shape.nodes,
        tensor_across_nodes=layout.tp > asked.gpus_per_node,
    )


def batch_limit(asked: Asked, crew: Crew, forecast: Forecast) -> int:
    """Sequences that a rank may run at once: as many as the SLO or the KV room allows."""
    if crew.shape.role is Role.PREFILL:
        # Enough that short prompts fill a step too; more would wait inside the engine.
        prompts = crew.shape.layout.chunk_tokens / max(asked.fresh_tokens, 1.0)
        return _SHORTER * math.ceil(prompts)
    return max(1, math.ceil(forecast.batch_most))


def _flags(asked: Asked, crew: Crew, forecast: Forecast, drafts: int) -> tuple[str, ...]:
    if asked.engine is EngineFamily.SGLANG:
        return _sglang_flags(asked, crew, forecast, drafts)
    layout = crew.shape.layout
    limit = batch_limit(asked, crew, forecast)
    flags = [
        *("--max-num-seqs", str(limit)),
        *("--max-num-batched-tokens", str(max(layout.chunk_tokens, limit))),
    ]
    if crew.shape.kv is Kv.FP8:
        flags += ["--kv-cache-dtype", "fp8"]
    if layout.mtp_drafts:
        speculative = {"method": "mtp", "num_speculative_tokens": drafts}
        flags += ["--speculative-config", json.dumps(speculative, sort_keys=True)]
    flags += graph_flags(crew.shape.role, limit, drafts if layout.mtp_drafts else 0)
    if layout.ep > 1:
        flags += wide_ep_of(asked, crew, forecast).flags
    return tuple(flags)


def _sglang_flags(asked: Asked, crew: Crew, forecast: Forecast, drafts: int) -> tuple[str, ...]:
    """SGLang counts what all data-parallel ranks of a server run together."""
    layout = crew.shape.layout
    flags = [
        *("--max-running-requests", str(batch_limit(asked, crew, forecast) * layout.dp)),
        *("--chunked-prefill-size", str(layout.chunk_tokens * layout.dp)),
    ]
    if crew.shape.kv is Kv.FP8:
        flags += ["--kv-cache-dtype", "fp8_e4m3"]
    if layout.mtp_drafts:
        flags += [
            *("--speculative-algorithm", "EAGLE"),  # its name for the model's own draft layer too
            *("--speculative-num-steps", str(drafts)),
            *("--speculative-eagle-topk", "1"),
            *("--speculative-num-draft-tokens", str(drafts + 1)),
        ]
    if layout.ep > 1:
        flags += sglang_flags(wide_ep_of(asked, crew, forecast))
    return tuple(flags)


def wide_ep_of(asked: Asked, crew: Crew, forecast: Forecast) -> WideEp:
    """How a gang of the crew exchanges tokens among its experts."""
    shape, layout = crew.shape, crew.shape.layout
    exchange = exchange_of(asked.gpu, asked.fabric, shape.role, layout.ep, asked.gpus_per_node)
    step_s = forecast.ttft_s if shape.role is Role.PREFILL else forecast.itl_s
    return WideEp(
        exchange,
        overlap=layout.overlap and exchange in OVERLAPPING,
        balance=balance_of(layout.redundant_experts, step_s),
    )
