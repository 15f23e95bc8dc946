"""Drains the nodes that Kubernetes is about to take away: cordons, autoscalers, spot notices.

Runs beside Ray's head, as a driver of the cluster.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from orchestrator import fleet
from orchestrator.core import R1ServeError, StartError
from orchestrator.fleet import NodeSeen, Notice
from orchestrator.telemetry import Log

LOOK_S = 5.0  # between two looks; a spot notice leaves 30 s at the least


class Nodes(Protocol):
    """What is asked of Kubernetes. Both raise OSError if it does not answer."""

    def nodes(self) -> Iterable[NodeSeen]:
        """Every node that Ray's pods may be on."""
        ...

    def pod_addresses(self) -> Mapping[str, list[str]]:
        """The addresses of Ray's pods, by the name of their node."""
        ...


class FakeNodes:
    """Stands for Kubernetes: whatever it was told."""

    def __init__(self) -> None:
        self.seen: dict[str, NodeSeen] = {}
        self.pods: dict[str, list[str]] = {}
        self.broken = False

    def nodes(self) -> Iterable[NodeSeen]:
        """Every node that Ray's pods may be on."""
        if self.broken:
            raise OSError("no answer")
        return list(self.seen.values())

    def pod_addresses(self) -> Mapping[str, list[str]]:
        """The addresses of Ray's pods, by the name of their node."""
        return self.pods


Drain = Callable[[str, str, float | None], None]  # a pod's address, the cause, the time left


class Maintenance:
    """Tells each notice once to whoever drains."""

    def __init__(self, nodes: Nodes, drain: Drain, log: Log) -> None:
        self._nodes = nodes
        self._drain = drain
        self._log = log
        self._told: dict[str, Notice] = {}  # by node

    def look(self) -> None:
        """One look. A Kubernetes that does not answer, or a node that cannot be drained now, is
        asked about again with the next.
        """
        try:
            notices = fleet.notices(self._nodes.nodes())
            pods = self._nodes.pod_addresses()
        except OSError as error:
            self._log.warning("kubernetes_unheard", cause=str(error))
            return
        named = {notice.node for notice in notices}
        for node in [node for node in self._told if node not in named]:
            del self._told[node]  # uncordoned, or gone
        for notice in fleet.fresh(self._told.values(), notices):
            if self._empty(notice, pods.get(notice.node, [])):
                self._told[notice.node] = notice

    def _empty(self, notice: Notice, addresses: list[str]) -> bool:
        for address in addresses:
            try:
                self._drain(address, f"its node {notice.node} is {notice.cause}", notice.within_s)
            except R1ServeError as error:
                self._log.warning("node_not_drained", node=notice.node, cause=error.cause)
                return False
        self._log.info(
            "node_draining",
            node=notice.node,
            reason=notice.cause,
            within_s=notice.within_s,
            pods=addresses,
        )
        return True


def maintain(nodes: Nodes, log: Log) -> None:
    """For ever."""
    maintenance = Maintenance(nodes, drain_address, log)
    while True:
        maintenance.look()
        time.sleep(LOOK_S)


def drain_address(address: str, cause: str, within_s: float | None) -> None:
    """Drains the Ray node at an address; one that Ray does not know has nothing to drain."""
    import ray  # only for who really drains

    from orchestrator.runtime.ray_nodes import drain_node

    for node in ray.nodes():
        if node["Alive"] and node["NodeManagerAddress"] == address:
            drain_node(node["NodeID"], cause, within_s)


class KubernetesNodes:
    """The cluster that this pod is in. Its service account must list nodes and pods."""

    def __init__(self, namespace: str, pod_selector: str) -> None:
        """Raises StartError outside of a cluster, or without the `kubernetes` extra."""
        try:
            from kubernetes import client, config  # the extra of that name
            from urllib3.exceptions import HTTPError
        except ImportError as error:
            raise StartError(
                "the kubernetes client is not installed", "install r1-serve[kubernetes]"
            ) from error
        try:
            config.load_incluster_config()
        except config.ConfigException as error:
            raise StartError(
                f"this is no pod of a Kubernetes cluster: {error}", "run it beside Ray's head"
            ) from error
        self._api = client.CoreV1Api()
        self._errors = (client.ApiException, HTTPError)
        self._namespace = namespace
        self._pod_selector = pod_selector

    def nodes(self) -> Iterable[NodeSeen]:
        """Every node that Ray's pods may be on."""
        try:
            listed = self._api.list_node(_request_timeout=LOOK_S).items
        except self._errors as error:
            raise OSError(f"nodes are not listed: {error}") from error
        return [
            NodeSeen(
                node.metadata.name,
                bool(node.spec.unschedulable),
                tuple(taint.key for taint in node.spec.taints or ()),
            )
            for node in listed
        ]

    def pod_addresses(self) -> Mapping[str, list[str]]:
        """The addresses of Ray's pods, by the name of their node."""
        try:
            listed = self._api.list_namespaced_pod(
                self._namespace, label_selector=self._pod_selector, _request_timeout=LOOK_S
            ).items
        except self._errors as error:
            raise OSError(f"pods are not listed: {error}") from error
        found: dict[str, list[str]] = {}
        for pod in listed:
            if pod.spec.node_name and pod.status.pod_ip:
                found.setdefault(pod.spec.node_name, []).append(pod.status.pod_ip)
        return found
