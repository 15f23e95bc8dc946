"""Nodes that Ray drains: the private part of Ray that we use for it. Wants a driver or a worker."""

import time
from collections.abc import Iterable

import ray
from ray.core.generated import autoscaler_pb2

from orchestrator.core import R1ServeError

ANSWER_S = 5


class DrainRefusedError(R1ServeError):
    """What was asked for is not done; nothing has changed."""


def drain_node(node_id: str, cause: str, within_s: float | None = None) -> None:
    """Has Ray put nothing more on the node, and so Serve replace what is on it: started elsewhere
    first, then drained. After `within_s` the node will be gone, so what finds no room elsewhere is
    drained in time; None: it waits until there is room.
    """
    deadline_ms = 0 if within_s is None else int(1000 * (time.time() + within_s))
    accepted, said = _gcs().drain_node(
        node_id,
        autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
        cause,
        deadline_ms,
    )
    if not accepted:
        raise DrainRefusedError(
            f"Ray does not drain node {node_id}: {said}", "look at `ray status`"
        )


def left_s(node_ids: Iterable[str]) -> float | None:
    """How long the first of the nodes to go will be there; None: none of them is about to go."""
    draining: dict[str, int] = _gcs().get_draining_nodes(timeout=ANSWER_S)
    deadlines_ms = [draining[node] for node in node_ids if draining.get(node)]
    return max(0.0, min(deadlines_ms) / 1000 - time.time()) if deadlines_ms else None


def _gcs() -> "ray._raylet.GcsClient":
    return ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
