"""The specs of `r1-serve up`: simulated nodes on one machine."""

from orchestrator.core import Role
from orchestrator.spec.spec import (
    Device,
    EngineKind,
    EngineSpec,
    FleetSpec,
    GangSpec,
    GatewaySpec,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)

LOOPBACK = "127.0.0.1"
# Compiling would take minutes, and without a size vLLM takes 92 % of the memory for KV.
CPU_VLLM_ARGS = ("--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20))


def local_spec(kind: EngineKind, nodes: int, model_path: str) -> Spec:
    """A fleet on this machine's loopback: half of the nodes prefill, the rest decodes.

    A prefill gang has two nodes, a decode gang one, so that even the smallest fleet, three nodes,
    has a gang that spans nodes: tensor parallel, as on nodes of one NVLink domain, since vLLM's
    NIXL connector moves no KV from or to pipeline stages. Not the decode gang: a step of it would
    cost a rendezvous of processes that share two cores. `nodes` below 3 leaves no room for both;
    placement then says so.
    """
    prefill_gangs = max(1, nodes // 4)
    decode_gangs = max(1, nodes - 2 * prefill_gangs)
    wide = GangSpec(tensor_parallel=2, nodes=2, tensor_across_nodes=True)
    engine = EngineSpec(
        kind=kind,
        device=Device.CPU,
        args=CPU_VLLM_ARGS if kind is EngineKind.VLLM else (),
        dtype="float32",
        start_timeout_s=300.0,
    )
    pools = (
        PoolSpec(Role.PREFILL, prefill_gangs, wide),
        PoolSpec(Role.DECODE, decode_gangs),
    )
    return Spec(
        models=(ModelSpec(model_path, pools, "DeepSeek-R1", max_model_len=2_048, engine=engine),),
        gateway=GatewaySpec(host=LOOPBACK),
        fleet=FleetSpec(health_period_s=1.0, start_attempts=1, stuck_after_s=60.0, drain_s=60.0),
        local=LocalSpec(nodes=nodes),
    )
