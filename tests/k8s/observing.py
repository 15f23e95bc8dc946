"""What tests of a running cluster ask it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from deploy.cluster.cluster import Cluster

T = TypeVar("T")
NAMESPACE = "serving"
WAIT_S = (
    600.0  # for anything at all: what takes seconds on two quiet cores takes minutes on busy ones
)
RELEASE = "r1"
NAME = "r1-r1-serve"


def eventually(ask: Callable[[], T], good: Callable[[T], bool], what: str) -> T:
    """The first good answer; raises AssertionError with the last one."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = ask()
        if good(answer):
            return answer
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S:g} s: {answer}"
        time.sleep(0.5)


_APIS = {
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "rayclusters": "/apis/ray.io/v1",
    "rayservices": "/apis/ray.io/v1",
}


def items(cluster: Cluster, kind: str, selector: str = "") -> list[dict[str, Any]]:
    """Objects of a kind in the namespace of the tests."""
    path = f"{_APIS.get(kind, '/api/v1')}/namespaces/{NAMESPACE}/{kind}"
    told = cluster.ask(f"{path}?labelSelector={quote(selector)}")
    found: list[dict[str, Any]] = told["items"]
    return found


def address(cluster: Cluster) -> str:
    """Of the release's Service, from this machine, which the node's network knows."""
    [found] = [
        each
        for each in items(cluster, "services")
        if each["metadata"]["name"] == f"{NAME}-serve-svc"
    ]
    return f"http://{found['spec']['clusterIP']}:8000"


def ready(thing: dict[str, Any]) -> bool:
    """Whether it says so of itself."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def living(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that nobody has told to end."""
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def of_group(pods: list[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """A worker group's, or the head."""
    return [pod for pod in living(pods) if pod["metadata"]["labels"].get("r1-serve/group") == group]


def uids(pods: list[dict[str, Any]]) -> set[str]:
    """Which pods they are."""
    return {pod["metadata"]["uid"] for pod in pods}
