"""What the planner's tests ask for."""

from dataclasses import replace

from orchestrator.perf import ARCHITECTURES, HARDWARE
from orchestrator.placement import Asked, Node
from orchestrator.workload import constant

WORKLOAD = constant(
    "test", "made up", input_tokens=3_000, output_tokens=800, prefix_hit=0.3, requests_per_s=None
)


def machines(gpu: str, count: int) -> tuple[Node, ...]:
    """Nodes as this GPU usually comes; `count` GPUs, whole nodes."""
    kind = HARDWARE[gpu]
    size = min(kind.gpus_per_node, count)
    assert count % size == 0
    return tuple(Node(f"n{at:03}", size) for at in range(count // size))


def asked(gpu: str = "H200", count: int = 16, model: str = "DeepSeek-R1", **more: object) -> Asked:
    """A request for a plan."""
    plain = Asked(ARCHITECTURES[model], HARDWARE[gpu], machines(gpu, count), WORKLOAD)
    return replace(plain, **more)  # type: ignore[arg-type]  # fields by name
