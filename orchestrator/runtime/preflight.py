"""What must be so on a node before weights load there; the facts are gathered by its agent."""

from collections.abc import Sequence

from orchestrator.core import EngineStartError
from orchestrator.runtime.launch import NodeFacts
from orchestrator.spec import EngineKind, ModelSpec

# vLLM's workers of a node talk through a ring of 10 x 24 MiB in /dev/shm (0.32,
# distributed/device_communicators/shm_broadcast.py), NCCL's through some MiB for each pair.
SHM_RING_BYTES = 240 << 20
SHM_BYTES_PER_RANK = 32 << 20


def check_nodes(model: ModelSpec, ranks_per_node: int, nodes: Sequence[NodeFacts]) -> None:
    """Raises EngineStartError if a gang of real engines cannot start on these nodes."""
    if model.engine.kind is not EngineKind.VLLM:
        return
    for node in nodes:
        if node.engine_version != model.engine.version:
            has = f"vLLM {node.engine_version}" if node.engine_version else "no vLLM"
            raise EngineStartError(
                f"node {node.host} has {has}, the spec asks for {model.engine.version}: engines of "
                "different versions do not understand each other's KV",
                "use one image on all nodes, or set engine.version to what they all have",
            )
        needed = SHM_RING_BYTES + SHM_BYTES_PER_RANK * ranks_per_node
        if ranks_per_node > 1 and node.shm_free_bytes < needed:
            raise EngineStartError(
                f"node {node.host} has {node.shm_free_bytes >> 20} MiB free in /dev/shm, its "
                f"{ranks_per_node} ranks need {needed >> 20} MiB",
                "mount an emptyDir of medium Memory at /dev/shm, or run the container with "
                "--shm-size, and remove what dead processes left there",
            )
