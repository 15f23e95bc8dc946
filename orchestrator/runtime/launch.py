"""From a model and the nodes a gang was given to the command line of each node's engine process."""

import sys
from dataclasses import dataclass

import msgspec

from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.command import EngineCommand, GangLaunch, NodeLaunch, engine_commands
from orchestrator.spec import EngineKind, ModelSpec, PoolSpec

# Where vLLM's grammars begin and thinking budgets end; what it parses we never ask for.
REASONING_PARSER = "deepseek_r1"
PORTS_PER_NODE = 4  # token channel, metrics, KV side channel, rendezvous


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a gang needs to know of a node before it starts an engine there."""

    node_id: str
    host: str
    interface: str  # the network interface that has `host`
    free_ports: tuple[int, ...]


def pool_name(model: ModelSpec, role: Role) -> str:
    """The name of the Serve deployment that is this pool."""
    return f"{model.name}-{role}"


def gang_commands(
    model: ModelSpec, role: Role, gang_id: str, nodes: tuple[NodeFacts, ...]
) -> tuple[EngineCommand, ...]:
    """One command per node, in the order of `nodes`; node 0 serves the token channel."""
    pool = model.pool(role)
    assert pool is not None
    assert len(nodes) == pool.gang.nodes
    match model.engine.kind:
        case EngineKind.FAKE:
            return tuple(
                _fake_command(model, pool, gang_id, nodes, rank) for rank in range(len(nodes))
            )
        case EngineKind.VLLM:
            return engine_commands(_launch(model, pool, gang_id, nodes))


def _launch(
    model: ModelSpec, pool: PoolSpec, gang_id: str, nodes: tuple[NodeFacts, ...]
) -> GangLaunch:
    gang, role = pool.gang, pool.role
    launched = []
    for node in nodes:
        channel, metrics, kv, _ = node.free_ports
        launched.append(NodeLaunch(node.host, channel, kv, node.interface, metrics))
    return GangLaunch(
        engine_id=gang_id,
        model_path=model.path,
        served_model_name=model.name,
        role=role,
        nodes=tuple(launched),
        master_port=nodes[0].free_ports[-1],
        device=model.engine.device,
        max_model_len=model.max_model_len,
        tensor_parallel=gang.tensor_parallel,
        pipeline_parallel=gang.pipeline_parallel,
        data_parallel=gang.data_parallel,
        expert_parallel=gang.expert_parallel,
        block_size=model.engine.block_size,
        dtype=model.engine.dtype,
        kv_transfer=role is not Role.UNIFIED,
        start_timeout_s=int(model.engine.start_timeout_s),
        engine_args=model.engine.args + pool.args,
        reasoning_parser=REASONING_PARSER if model.profile.thinks else None,
    )


def _fake_command(
    model: ModelSpec, pool: PoolSpec, gang_id: str, nodes: tuple[NodeFacts, ...], rank: int
) -> EngineCommand:
    """The fake on node 0 stands for all data-parallel ranks of the gang, behind one channel."""
    of_rank, ranks = FakeEngineSpec(), pool.gang.data_parallel
    options = FakeEngineSpec(
        max_running=of_rank.max_running * ranks,
        kv_blocks=of_rank.kv_blocks * ranks,
        max_model_len=model.max_model_len,
        step_s=model.engine.fake_step_s,
        prefill_s_per_token=model.engine.fake_prefill_s_per_token,
        kv_host=nodes[rank].host,
        model=model.name,
    )
    argv = (
        *(sys.executable, "-m", "orchestrator.engines.server"),
        *("--listen", f"{nodes[rank].host}:{nodes[rank].free_ports[0]}"),
        *("--engine-id", gang_id),
        *("--role", pool.role.value),
        *("--engine", "fake"),
        *("--node-rank", str(rank)),
        *("--nnodes", str(len(nodes))),
        *("--fake-options", msgspec.json.encode(options).decode()),
    )
    return EngineCommand(argv, {})
