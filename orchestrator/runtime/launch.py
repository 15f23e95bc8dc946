"""From a model and the nodes a gang was given to the command lines of its engine processes."""

import sys
from dataclasses import dataclass

import msgspec

from orchestrator.core import LayoutError, Role, SpecError
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.command import EngineCommand, GangLaunch, ProcessLaunch, engine_commands
from orchestrator.engines.kv_connector import KvConnector
from orchestrator.engines.pairing import pairing_fault
from orchestrator.engines.weights import local_path
from orchestrator.perf import ARCHITECTURES
from orchestrator.spec import Device, EngineKind, HandoffSpec, ModelSpec, PoolSpec, source_of

# Where vLLM's grammars begin and thinking budgets end; what it parses we never ask for.
REASONING_PARSER = "deepseek_r1"
PORTS_PER_PROCESS = 3  # token channel, metrics, KV side channel


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a gang needs to know of a node before it starts an engine there."""

    node_id: str
    host: str
    interface: str  # the network interface that has `host`
    free_ports: tuple[int, ...]
    engine_version: str | None = None  # of vLLM; None: there is none
    shm_free_bytes: int = 0  # in /dev/shm


NodeCommands = tuple[EngineCommand, ...]  # of the processes of one node


def pool_name(model: ModelSpec, role: Role) -> str:
    """The name of the Serve deployment that is this pool."""
    return f"{model.name}-{role}"


def ports_per_node(model: ModelSpec, role: Role) -> int:
    """The free ports that a gang of the pool needs on each of its nodes: those of its processes
    there, and one for all of its processes to meet at.
    """
    return 1 + PORTS_PER_PROCESS * _processes_per_node(model, _pool(model, role))


def gang_commands(
    model: ModelSpec,
    role: Role,
    gang_id: str,
    nodes: tuple[NodeFacts, ...],
    handoff: HandoffSpec,
) -> tuple[NodeCommands, ...]:
    """The commands of each node's engine processes, in the order of `nodes`.

    Raises LayoutError or SpecError if the gang cannot be started so.
    """
    pool = _pool(model, role)
    assert len(nodes) == pool.gang.nodes
    match model.engine.kind:
        case EngineKind.FAKE:
            return tuple(
                (_fake_command(model, pool, gang_id, nodes, rank),) for rank in range(len(nodes))
            )
        case EngineKind.VLLM:
            _check_pair(model)
            commands = engine_commands(_launch(model, pool, gang_id, nodes, handoff))
            each = len(commands) // len(nodes)
            return tuple(commands[at : at + each] for at in range(0, len(commands), each))


def _pool(model: ModelSpec, role: Role) -> PoolSpec:
    pool = model.pool(role)
    assert pool is not None
    return pool


def _check_pair(model: ModelSpec) -> None:
    prefill, decode = model.pool(Role.PREFILL), model.pool(Role.DECODE)
    if prefill is None or decode is None:
        return
    shared = model.engine.args
    if fault := pairing_fault(shared + prefill.args, shared + decode.args):
        raise SpecError(
            f"{model.name}: {fault}, and then they cannot hand KV to each other",
            "give both pools the same, in engine.args",
        )


def _processes_per_node(model: ModelSpec, pool: PoolSpec) -> int:
    gang = pool.gang
    if gang.data_parallel == 1 or model.engine.kind is EngineKind.FAKE:
        return 1
    if gang.data_parallel % gang.nodes:
        raise LayoutError(
            f"pools.{pool.role}: {gang.data_parallel} data-parallel ranks cannot be dealt evenly "
            f"to {gang.nodes} nodes, and none of them may span several",
            "make gang.data_parallel a multiple of gang.nodes",
        )
    return gang.data_parallel // gang.nodes


def _launch(
    model: ModelSpec,
    pool: PoolSpec,
    gang_id: str,
    nodes: tuple[NodeFacts, ...],
    handoff: HandoffSpec,
) -> GangLaunch:
    gang, role, source = pool.gang, pool.role, source_of(model.path)
    launched = []
    for node in nodes:
        for local in range(_processes_per_node(model, pool)):
            channel, metrics, kv = node.free_ports[1 + PORTS_PER_PROCESS * local :][
                :PORTS_PER_PROCESS
            ]
            launched.append(
                ProcessLaunch(
                    node.host,
                    channel,
                    kv,
                    node.interface,
                    metrics,
                    first_gpu=local * gang.tensor_parallel * gang.pipeline_parallel,
                )
            )
    return GangLaunch(
        engine_id=gang_id,
        model_path=local_path(source, model.weights_cache),
        source=source,
        weights_cache=model.weights_cache,
        # Tiny checkpoints, which are for CPUs, have the model's architecture and not its sizes.
        expected_sizes=_sizes(model) if model.engine.device is Device.GPU else {},
        served_model_name=model.name,
        role=role,
        processes=tuple(launched),
        master_port=nodes[0].free_ports[0],
        device=model.engine.device,
        max_model_len=model.max_model_len,
        tensor_parallel=gang.tensor_parallel,
        pipeline_parallel=gang.pipeline_parallel,
        data_parallel=gang.data_parallel,
        expert_parallel=gang.expert_parallel,
        block_size=model.engine.block_size,
        dtype=model.engine.dtype,
        connector=(None if role is Role.UNIFIED else KvConnector(handoff.kv, handoff.fabric)),
        start_timeout_s=int(model.engine.start_timeout_s),
        engine_args=model.engine.args + pool.args,
        reasoning_parser=REASONING_PARSER if model.profile.thinks else None,
    )


def _sizes(model: ModelSpec) -> dict[str, int]:
    """What config.json of the model says, in its keys."""
    known = ARCHITECTURES[model.name]
    sizes = {
        "hidden_size": known.hidden,
        "num_attention_heads": known.attention.heads,
        "num_hidden_layers": known.layers,
    }
    if known.experts is not None:
        sizes["n_routed_experts"] = known.experts.routed
    return sizes


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
        *("--listen", f"{nodes[rank].host}:{nodes[rank].free_ports[1]}"),
        *("--engine-id", gang_id),
        *("--role", pool.role.value),
        *("--engine", "fake"),
        *("--node-rank", str(rank)),
        *("--nnodes", str(len(nodes))),
        *("--fake-options", msgspec.json.encode(options).decode()),
    )
    return EngineCommand(argv, {}, rank=0 if rank == 0 else None)
