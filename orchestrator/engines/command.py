"""From one gang to the command line and environment of each of its engine processes; pure.

Typed here is what placement and routing decide. Every other flag of vLLM's passes through unread.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core import LayoutError, Role, SpecError
from orchestrator.engines.kv_connector import (
    KvConnector,
    connector_config,
    connector_environment,
)
from orchestrator.engines.weights import loader_flags
from orchestrator.spec import Device, KvHandoff, Source, SourceKind

CPU_PLUGIN = "r1_serve_cpu"  # the entry point of deploy/cpu
# On a CPU with AMX vLLM prefers a backend that fails at fp32; models without MLA ignore the flag.
CPU_FLAGS = ("--attention-backend", "CPU_MLA")

# What enters and leaves each rank's prefix cache, for routing: ports of vLLM's own choice on the
# process's address, which the engine tells when it is ready. Hashed so that others can do it too.
_KV_EVENTS = {
    "enable_kv_cache_events": True,
    "publisher": "zmq",
    "endpoint": "tcp://*:0",
    "replay_endpoint": "tcp://*:0",
}
KV_EVENT_FLAGS = (
    *("--kv-events-config", json.dumps(_KV_EVENTS, sort_keys=True)),
    *("--prefix-caching-hash-algo", "sha256_cbor"),
)

# Flags that `engine_args` may not name: each follows from the gang. vLLM also takes underscores,
# unambiguous abbreviations, `--flag=value` and `--flag.key value`.
_OUR_FLAGS = (
    "--block-size",
    "--config",  # a file could name any of the others
    "--data-parallel-address",
    "--data-parallel-backend",
    "--data-parallel-external-lb",
    "--data-parallel-hybrid-lb",
    "--data-parallel-multi-port-external-lb",
    "--data-parallel-rank",
    "--data-parallel-rpc-port",
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--data-parallel-start-rank",
    "--data-parallel-supervisor-port",
    "--device-ids",
    "--distributed-executor-backend",
    "--dtype",
    "--enable-expert-parallel",
    "--headless",
    "--kv-events-config",
    "--kv-transfer-config",
    "--master-addr",
    "--master-port",
    "--max-model-len",
    "--model",
    "--nnodes",
    "--no-enable-expert-parallel",
    "--node-rank",
    "--pipeline-parallel-size",
    "--prefix-caching-hash-algo",
    "--reasoning-parser",
    "--served-model-name",
    "--tensor-parallel-size",
)
_OUR_SHORT_FLAGS = ("-dp", "-ep", "-n", "-pp", "-r", "-tp")  # and -dpa, -dpb, ... by prefix


@dataclass(frozen=True, slots=True)
class ProcessLaunch:
    """Where one engine process runs and listens. Ports are free TCP ports of `host`."""

    host: str  # an address that the other nodes and the gateways reach
    channel_port: int  # token channel; used where the process is a rank's first
    kv_port: int  # where KV peers ask; used there if KV is transferred
    interface: str  # the network interface that has `host`, for Gloo and NCCL
    metrics_port: int | None = None  # used there; None serves no metrics
    first_gpu: int = 0  # which of the gang's GPUs on this node is its first


@dataclass(frozen=True, slots=True)
class GangLaunch:
    """One gang, placed.

    With `data_parallel` > 1 there is a process for each data-parallel rank, in their order; a rank
    has a token channel of its own and stays inside a node. Otherwise there is a process for each
    node, and the first serves the channel of the one rank: with `pipeline_parallel` > 1 each stage
    stays inside a node, and a tensor-parallel group goes across nodes only if it is the only stage.
    """

    engine_id: str  # of this life of the gang: KV peers tell a restarted one by it
    model_path: str
    served_model_name: str
    role: Role
    processes: tuple[ProcessLaunch, ...]
    master_port: int  # rendezvous of the processes, where the first runs; used with several
    device: Device
    max_model_len: int  # tokens, prompt plus output
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    block_size: int | None = None  # tokens per KV block; None leaves it to vLLM
    dtype: str = "auto"
    # vLLM's parser that knows where a thought ends, for models that think: a grammar begins behind
    # it, and a thinking budget ends it. Not used if `engine_args` say --skip-tokenizer-init.
    reasoning_parser: str | None = None
    # Of prefill and decode gangs, whose block sizes and dtypes must agree.
    connector: KvConnector | None = None
    start_timeout_s: int = 3600
    engine_args: tuple[str, ...] = ()  # vLLM's flags that are none of our business
    source: Source | None = None  # where the weights are, if not in the folder `model_path`
    weights_cache: str = ""  # of the node, for what is downloaded into `model_path`
    # Keys of config.json with the sizes of the model that this is served as; others are refused.
    expected_sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def gpus_of_rank(self) -> int:
        """GPUs that share one KV cache."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def nodes_of_rank(self) -> int:
        """Nodes that one data-parallel rank spans."""
        return 1 if self.data_parallel > 1 else len(self.processes)


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """One process: its arguments, and what is added to the environment of its parent.

    `rank` is the data-parallel rank whose token channel it serves; None: it serves none.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    rank: int | None = 0


def engine_commands(launch: GangLaunch) -> tuple[EngineCommand, ...]:
    """One command per process, in the order of `launch.processes`.

    Raises LayoutError if the sizes do not fit the nodes or each other, SpecError if `engine_args`
    names a flag that follows from the gang.
    """
    _check_layout(launch)
    _check_engine_args(launch.engine_args)
    return tuple(
        EngineCommand(
            argv=(
                *(sys.executable, "-m", "orchestrator.engines.server"),
                *_server_options(launch, index),
                "--",
                *_vllm_flags(launch, index),
            ),
            env=_environment(launch, index),
            rank=index if launch.data_parallel > 1 or index == 0 else None,
        )
        for index in range(len(launch.processes))
    )


def _check_layout(launch: GangLaunch) -> None:
    assert launch.processes, "a gang has a process"
    assert launch.connector is None or launch.role is not Role.UNIFIED, "it transfers no KV"
    assert launch.data_parallel in (1, len(launch.processes)), "one process a data-parallel rank"
    ranks, nodes = launch.gpus_of_rank, launch.nodes_of_rank
    if ranks % nodes:
        raise LayoutError(
            f"{ranks} ranks do not divide over {nodes} nodes",
            f"make tensor_parallel x pipeline_parallel a multiple of {nodes}",
        )
    if launch.pipeline_parallel > 1 and (ranks // nodes) % launch.tensor_parallel:
        raise LayoutError(
            f"a stage of {launch.tensor_parallel} ranks does not fit a node's {ranks // nodes}",
            "use as many nodes as pipeline stages, or a divisor of that",
        )
    if launch.connector is not None and launch.pipeline_parallel > 1:
        # With NIXL vLLM 0.32 would run as a decode gang, but every stage reports that it has read
        # the blocks, and the prefill gang frees them after the first report; as a prefill gang it
        # is refused at the first transfer. With Mooncake nobody here has tried.
        raise LayoutError(
            "no KV is transferred from or to a gang with pipeline stages",
            "use pipeline_parallel 1 in prefill and decode pools, or one unified pool",
        )


def _check_engine_args(engine_args: tuple[str, ...]) -> None:
    for argument in engine_args:
        name = argument.partition("=")[0].partition(".")[0].replace("_", "-")
        if (
            name in _OUR_SHORT_FLAGS
            or name.startswith("-dp")
            or (name.startswith("--") and any(flag.startswith(name) for flag in _OUR_FLAGS))
        ):
            raise SpecError(
                f"engine args name {argument}, which follows from the gang",
                "remove it, and set the model, pool or engine field of the spec instead",
            )


def _server_options(launch: GangLaunch, index: int) -> tuple[str, ...]:
    process = launch.processes[index]
    node_rank = index % launch.nodes_of_rank
    options = [
        *("--listen", f"{bracketed(process.host)}:{process.channel_port}"),
        *("--engine-id", launch.engine_id),
        *("--role", launch.role.value),
        *("--engine", "vllm"),
        *("--node-rank", str(node_rank)),
        *("--nnodes", str(launch.nodes_of_rank)),
    ]
    if launch.source is not None and launch.source.kind is SourceKind.HUB:
        hub = f"hf://{launch.source.where}@{launch.source.revision}"
        options += ["--fetch", hub, "--weights-cache", launch.weights_cache]
    if launch.expected_sizes:
        options += ["--expect-sizes", json.dumps(dict(launch.expected_sizes), sort_keys=True)]
    if node_rank == 0 and process.metrics_port is not None:
        options += ["--metrics", f"{bracketed(process.host)}:{process.metrics_port}"]
    return tuple(options)


def _vllm_flags(launch: GangLaunch, index: int) -> tuple[str, ...]:
    flags = [
        *("--model", launch.model_path),
        *("--served-model-name", launch.served_model_name),
        *("--max-model-len", str(launch.max_model_len)),
        *("--dtype", launch.dtype),
        *("--tensor-parallel-size", str(launch.tensor_parallel)),
        *("--pipeline-parallel-size", str(launch.pipeline_parallel)),
    ]
    flags += _parallel_flags(launch, index)
    if launch.expert_parallel:
        flags += ["--enable-expert-parallel"]
    if launch.device is Device.CPU:
        flags += CPU_FLAGS
    if launch.block_size is not None:
        flags += ["--block-size", str(launch.block_size)]
    if launch.reasoning_parser is not None and not _skips_tokenizer(launch.engine_args):
        flags += ["--reasoning-parser", launch.reasoning_parser]
    if launch.source is not None:
        flags += loader_flags(launch.source, expert_parallel=launch.expert_parallel)
    if launch.connector is not None:
        config = connector_config(launch.connector, launch.role, launch.engine_id, launch.device)
        flags += ["--kv-transfer-config", json.dumps(config, sort_keys=True)]
    return (*flags, *KV_EVENT_FLAGS, *launch.engine_args)


def _parallel_flags(launch: GangLaunch, index: int) -> list[str]:
    """How the processes find each other, and which GPUs are whose."""
    flags: list[str] = []
    if launch.gpus_of_rank > 1:
        flags += ["--distributed-executor-backend", "mp"]
    first = launch.processes[0]
    if launch.nodes_of_rank > 1:
        flags += [
            *("--nnodes", str(launch.nodes_of_rank)),
            *("--node-rank", str(index)),
            *("--master-addr", first.host),
            *("--master-port", str(launch.master_port)),
        ]
    if launch.data_parallel > 1:
        # A rank makes vLLM leave the choice among ranks to us ("external load balancing"); rank 0
        # runs the coordinator that keeps all in step.
        flags += [
            *("--data-parallel-size", str(launch.data_parallel)),
            *("--data-parallel-rank", str(index)),
            *("--data-parallel-address", first.host),
            *("--data-parallel-rpc-port", str(launch.master_port)),
        ]
        if launch.device is Device.GPU:
            # All GPUs of the node stay visible to each process: kernels that exchange among experts
            # over NVLink map the memory of their peers.
            start = launch.processes[index].first_gpu
            gpus = range(start, start + launch.gpus_of_rank)
            flags += ["--device-ids", ",".join(map(str, gpus))]
        elif launch.gpus_of_rank == 1:
            flags += ["--distributed-executor-backend", "uni"]
    return flags


def _skips_tokenizer(engine_args: tuple[str, ...]) -> bool:
    """Then vLLM does not start with a reasoning parser, and takes no grammars and no budgets."""
    return any(arg.replace("_", "-") == "--skip-tokenizer-init" for arg in engine_args)


def _environment(launch: GangLaunch, index: int) -> dict[str, str]:
    """Everything that makes the process independent of its node's defaults.

    UCX chooses its devices itself on GPU nodes, where it knows the RDMA NICs better than we do.
    """
    process = launch.processes[index]
    dp_rank = index if launch.data_parallel > 1 else 0
    environment = {
        "GLOO_SOCKET_IFNAME": process.interface,
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(launch.start_timeout_s),
        "VLLM_HOST_IP": process.host,
        "VLLM_NO_USAGE_STATS": "1",
    }
    if launch.connector is not None:
        asked = process
        if launch.connector.way is KvHandoff.PUSH:  # all of a rank's register with its first
            asked = launch.processes[index - index % launch.nodes_of_rank]
        environment |= connector_environment(
            launch.connector, launch.device, process.host, asked.kv_port, dp_rank
        )
    match launch.device:
        case Device.GPU:
            # an empty name matches no plugin: the one for CPUs must never be loaded here
            environment |= {
                "NCCL_SOCKET_IFNAME": process.interface,
                "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": process.interface,
                "VLLM_PLUGINS": "",
            }
        case Device.CPU:
            environment |= {
                "OMP_NUM_THREADS": "1",
                "UCX_NET_DEVICES": process.interface,
                # not through shared memory: simulated nodes are on one machine, and KV is to cross
                # the links between them
                "UCX_TLS": "tcp,self",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_PLUGINS": CPU_PLUGIN,
            }
            if launch.gpus_of_rank == 1:
                # the worker runs inside the engine core: one process and 10 s of CPU time less
                environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return environment


def bracketed(host: str) -> str:
    """The host as it stands before a colon and a port."""
    return f"[{host}]" if ":" in host else host
