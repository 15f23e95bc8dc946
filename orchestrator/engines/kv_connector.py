"""vLLM's connector that moves KV between prefill and decode gangs: its settings, which are ours.

Pure: what each engine process is told, as values. How the handoff goes about it is `KvHandoff`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core import Role
from orchestrator.spec import Device, Fabric, KvHandoff

_KV_ROLES: Mapping[Role, str] = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}

MOONCAKE = "MooncakeConnector"
# How long a prefill rank with Mooncake keeps blocks that nobody asks for. vLLM's own 480 s would
# hold them for eight minutes, and those of a decode rank whose peer has died for nine.
MOONCAKE_KEEPS_S = 60


@dataclass(frozen=True, slots=True)
class KvConnector:
    """How a gang's engines hand KV on."""

    way: KvHandoff  # PULL or PUSH: vLLM has no connector for the third
    fabric: Fabric | None = None  # None: what the connector takes by itself


def connector_config(
    connector: KvConnector, role: Role, engine_id: str, device: Device
) -> dict[str, object]:
    """vLLM's `--kv-transfer-config` for every process of the gang."""
    extra: dict[str, object] = {}
    config: dict[str, object] = {
        "kv_role": _KV_ROLES[role],
        "engine_id": engine_id,
        # a failed transfer fails its request at once, and the handoff starts over elsewhere
        "kv_load_failure_policy": "fail",
    }
    if connector.way is KvHandoff.PUSH:
        config["kv_connector"] = MOONCAKE
        # Mooncake takes RDMA unless told, and does not start where there is none.
        fabric = Fabric.TCP if device is Device.CPU else connector.fabric or Fabric.RDMA
        extra["mooncake_protocol"] = fabric.value
    else:
        config["kv_connector"] = "NixlConnector"
        if device is Device.CPU:
            config["kv_buffer_device"] = "cpu"
            # without own threads NIXL's progress thread can rest (see deploy/cpu); with them a core
            # burns per worker
            extra["num_threads"] = 0
    if extra:
        config["kv_connector_extra_config"] = extra
    return config


def connector_environment(
    connector: KvConnector, device: Device, host: str, port: int, dp_rank: int
) -> dict[str, str]:
    """What one process gets besides: `port` is where it, or its rank's first, can be asked.

    `dp_rank` is the process's data-parallel rank, 0 without.
    """
    if connector.way is KvHandoff.PUSH:
        return {
            "VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT": str(MOONCAKE_KEEPS_S),
            "VLLM_MOONCAKE_BOOTSTRAP_PORT": str(port),
        }
    environment = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": host,
        # vLLM adds the data-parallel rank to it
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port - dp_rank),
    }
    if device is Device.GPU:
        match connector.fabric:
            case Fabric.RDMA:
                # UCX would take TCP where RDMA does not work, ten times slower and without a word;
                # so it fails at the first transfer.
                environment["UCX_TLS"] = "^tcp"
            case Fabric.TCP:
                environment["UCX_TLS"] = "tcp,cuda_copy,cuda_ipc,self,sm"
            case None:
                pass
    return environment
