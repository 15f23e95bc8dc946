"""From what Kubernetes says of its nodes to the nodes that are to be drained, and how soon."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a node is to be emptied."""

    CORDONED = "cordoned"  # nothing new may be put there, and somebody is about to work on it
    REMOVED = "removed"  # an autoscaler takes it away
    SPOT_NOTICE = "spot_notice"  # its owner takes it back


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as its object says: whether it is cordoned, and the keys of its taints."""

    name: str
    unschedulable: bool = False
    taints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """A node to drain. It will be gone after `within_s`; None: nobody has said."""

    node: str
    cause: Cause
    within_s: float | None = None


# Keys of taints that announce an end, and the time that is left when they appear.
_ANNOUNCE: dict[str, tuple[Cause, float | None]] = {
    # aws-node-termination-handler, docs: the interruption notice comes two minutes before
    "aws-node-termination-handler/spot-itn": (Cause.SPOT_NOTICE, 120.0),
    "aws-node-termination-handler/asg-lifecycle-termination": (Cause.REMOVED, None),
    "aws-node-termination-handler/scheduled-maintenance": (Cause.CORDONED, None),
    # GKE, "Spot VMs" and "Manage disruption to GPU nodes": the taint of graceful termination;
    # of a Spot VM 30 s are promised
    "cloud.google.com/impending-node-termination": (Cause.SPOT_NOTICE, 30.0),
    "karpenter.sh/disrupted": (Cause.REMOVED, None),
    "ToBeDeletedByClusterAutoscaler": (Cause.REMOVED, None),
}


def notices(nodes: Iterable[NodeSeen]) -> list[Notice]:
    """The nodes to drain, by name; of several causes the one that leaves the least time counts."""
    found = [notice for node in nodes if (notice := _notice(node)) is not None]
    return sorted(found, key=lambda notice: notice.node)


def fresh(told: Iterable[Notice], now: Iterable[Notice]) -> list[Notice]:
    """Those of `now` that say more than was told before: other nodes, or less time."""
    before = {notice.node: _left_s(notice) for notice in told}
    return [
        notice
        for notice in now
        if notice.node not in before or _left_s(notice) < before[notice.node]
    ]


def _notice(node: NodeSeen) -> Notice | None:
    causes = [_ANNOUNCE[taint] for taint in node.taints if taint in _ANNOUNCE]
    announced = [Notice(node.name, cause, within_s) for cause, within_s in causes]
    if announced:
        return min(announced, key=_left_s)
    return Notice(node.name, Cause.CORDONED) if node.unschedulable else None


def _left_s(notice: Notice) -> float:
    return float("inf") if notice.within_s is None else notice.within_s
