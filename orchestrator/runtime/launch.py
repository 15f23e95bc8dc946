"""From a spec and the nodes a gang was given to the command line of each node's engine process."""

import sys

import msgspec

from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.command import EngineCommand, GangLaunch, NodeLaunch, engine_commands
from orchestrator.runtime.node_agent import NodeFacts
from orchestrator.spec import EngineKind, GangSpec, Spec

PORTS_PER_NODE = 4  # token channel, metrics, KV side channel, rendezvous


def gang_commands(
    spec: Spec, role: Role, gang_id: str, nodes: tuple[NodeFacts, ...]
) -> tuple[EngineCommand, ...]:
    """One command per node, in the order of `nodes`; node 0 serves the token channel."""
    pool = spec.pool(role)
    assert pool is not None
    assert len(nodes) == pool.gang.nodes
    match spec.engine.kind:
        case EngineKind.FAKE:
            return tuple(
                _fake_command(spec, role, gang_id, nodes, rank) for rank in range(len(nodes))
            )
        case EngineKind.VLLM:
            return engine_commands(_launch(spec, role, gang_id, pool.gang, nodes))


def _launch(
    spec: Spec, role: Role, gang_id: str, gang: GangSpec, nodes: tuple[NodeFacts, ...]
) -> GangLaunch:
    launched = []
    for node in nodes:
        channel, metrics, kv, _ = node.free_ports
        launched.append(NodeLaunch(node.host, channel, kv, node.interface, metrics))
    return GangLaunch(
        engine_id=gang_id,
        model_path=spec.model.path,
        served_model_name=spec.model.name,
        role=role,
        nodes=tuple(launched),
        master_port=nodes[0].free_ports[-1],
        device=spec.engine.device,
        max_model_len=spec.model.max_model_len,
        tensor_parallel=gang.tensor_parallel,
        pipeline_parallel=gang.pipeline_parallel,
        expert_parallel=gang.expert_parallel,
        block_size=spec.engine.block_size,
        dtype=spec.engine.dtype,
        kv_transfer=role is not Role.UNIFIED,
        start_timeout_s=int(spec.engine.start_timeout_s),
        engine_args=spec.engine.args,
    )


def _fake_command(
    spec: Spec, role: Role, gang_id: str, nodes: tuple[NodeFacts, ...], rank: int
) -> EngineCommand:
    options = FakeEngineSpec(
        max_model_len=spec.model.max_model_len,
        step_s=spec.engine.fake_step_s,
        prefill_s_per_token=spec.engine.fake_prefill_s_per_token,
        kv_host=nodes[rank].host,
        model=spec.model.name,
    )
    argv = (
        *(sys.executable, "-m", "orchestrator.engines.server"),
        *("--listen", f"{nodes[rank].host}:{nodes[rank].free_ports[0]}"),
        *("--engine-id", gang_id),
        *("--role", role.value),
        *("--engine", "fake"),
        *("--node-rank", str(rank)),
        *("--nnodes", str(len(nodes))),
        *("--fake-options", msgspec.json.encode(options).decode()),
    )
    return EngineCommand(argv, {})
