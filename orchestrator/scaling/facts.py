"""From a spec to what scaling knows of its pools."""

from orchestrator.perf import start_s
from orchestrator.scaling.capacity import PoolFacts
from orchestrator.scaling.decide import Plan
from orchestrator.spec import ModelSpec, PoolSpec, Spec, flag_value

_SEQUENCES_MAX = 256  # of a rank, where no flag says: vLLM's --max-num-seqs


def plan_of(spec: Spec, model: ModelSpec) -> Plan:
    """Of a model that is scaled; the loader has checked that what is needed is there."""
    assert model.scaling is not None
    return Plan(model.scaling, {pool.role: _facts(spec, model, pool) for pool in model.pools})


def _facts(spec: Spec, model: ModelSpec, pool: PoolSpec) -> PoolFacts:
    rate = model.engine.storage_bytes_per_s
    assert pool.costs is not None
    assert pool.node_weights_bytes is not None
    assert rate is not None
    sequences = flag_value((*model.engine.args, *pool.args), "--max-num-seqs")
    return PoolFacts(
        role=pool.role,
        gpus=pool.gang.gpus,
        ranks=pool.gang.data_parallel,
        costs=pool.costs,
        start_s=start_s(pool.node_weights_bytes, rate),
        sequences_max=min(
            int(sequences or _SEQUENCES_MAX), spec.channel.max_requests * spec.gateway.replicas
        ),
    )
