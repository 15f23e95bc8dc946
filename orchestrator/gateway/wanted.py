"""What a spec says that the doctor is to find."""

import json

from orchestrator.core import Role
from orchestrator.engines.kv_connector import KvConnector, connector_config
from orchestrator.engines.pairing import settings
from orchestrator.fleet.doctor import Wanted
from orchestrator.spec import EngineKind, Fabric, ModelSpec, Spec, TemplateKind

# Half of what the links are built for: below that something else than load is wrong.
_FLOORS_BYTES_PER_S = {
    Fabric.RDMA: 25e9,  # a NIC of 400 Gbit/s for each GPU, as DeepSeek's and NVIDIA's nodes have
    Fabric.TCP: 0.6e9,  # 10 Gbit/s
}


def wanted(spec: Spec, model: ModelSpec) -> Wanted:
    """Of the engines of one model."""
    vllm = model.engine.kind is EngineKind.VLLM
    apart = model.pool(Role.UNIFIED) is None
    told = settings(model.engine.args)
    for pool in model.pools:
        told |= settings(pool.args)
    experts = any(pool.gang.expert_parallel for pool in model.pools)
    connector = None
    if apart and vllm:
        way = KvConnector(spec.handoff.kv, spec.handoff.fabric)
        config = connector_config(way, Role.DECODE, "", model.engine.device)
        connector = str(config["kv_connector"])
    fabric = spec.handoff.fabric
    return Wanted(
        apart=apart,
        connector=connector,
        version=f"vllm {model.engine.version}" if vllm else None,
        max_model_len=model.max_model_len,
        all2all=told.get("--all2all-backend") if experts else None,
        draft_tokens=_draft_tokens(told),
        prefix_cache=vllm and "--no-enable-prefix-caching" not in told,
        thinks=model.profile.thinks and model.profile.template is not TemplateKind.R1_ZERO,
        fabric_floor_bytes_per_s=None if fabric is None else _FLOORS_BYTES_PER_S[fabric],
    )


def _draft_tokens(told: dict[str, str]) -> int:
    """That MTP is to propose; 0 without."""
    text = told.get("--speculative-config")
    if text is None:
        return int(told.get("--spec-tokens", "1")) if "--spec-method" in told else 0
    try:
        found = json.loads(text)
    except ValueError:
        return 1
    tokens = found.get("num_speculative_tokens", 1) if isinstance(found, dict) else 1
    return tokens if isinstance(tokens, int) else 1
