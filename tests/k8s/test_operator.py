"""The chart under a real kubelet, container runtime, scheduler, DNS and KubeRay operator.

Ray is a stub.
"""

import copy
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.cluster.cluster import Cluster, cluster, leftovers, programs
from deploy.cluster.images import write_image, write_layer
from deploy.cluster.operators import base_images, install_kuberay
from tests.chart.rendering import CHART
from tests.k8s.marks import ON_A_CLUSTER
from tests.k8s.observing import (
    NAME,
    NAMESPACE,
    RELEASE,
    address,
    eventually,
    items,
    living,
    of_group,
    ready,
    uids,
)

pytestmark = ON_A_CLUSTER

IMAGE = "r1-serve.test/stub"
SMALL = {"memory": "64Mi"}
VALUES: dict[str, Any] = {
    "image": {"repository": IMAGE, "tag": "1"},
    "head": SMALL,
    "gateways": SMALL,
    "gpuHosts": SMALL | {"shm": "16Mi", "ephemeralStorage": ""},
    "ray": {"upgrade": "NewCluster"},
    "spec": {"fleet": {"drain_s": 1}},
}
GANG = "ray.io/worker-group-replica-name"


def values(**changes: object) -> dict[str, Any]:
    """Those of all tests with these changes, each by its path."""
    found = copy.deepcopy(VALUES)
    for path, value in changes.items():
        *above, last = path.split("__")
        tree = found
        for key in above:
            tree = tree.setdefault(key, {})
        tree[last] = value
    return found


def helm(cluster: Cluster, verb: str, given: dict[str, Any]) -> float:
    """Installs or upgrades and waits for readiness; the seconds it took."""
    began = time.monotonic()
    cluster.helm(
        *(verb, RELEASE, str(CHART), "-n", NAMESPACE, "--wait", "--timeout", "600s"),
        *("-f", str(CHART / "profiles/sim.yaml"), "-f", "-"),
        text=json.dumps(given),
    )
    return time.monotonic() - began


def service(cluster: Cluster) -> dict[str, Any]:
    [found] = items(cluster, "rayservices")
    return found


def is_ready(cluster: Cluster) -> None:
    eventually(lambda: service(cluster), ready, "RayService that is Ready")


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the operator and the chart on it; afterwards, nothing."""
    tools, folder = (
        programs("kuberay-operator", "pause", "debian.tar"),
        Path(tmp_path_factory.mktemp("images")),
    )
    write_layer(
        folder / "layer.tar", {"/usr/local/bin/ray": Path("tests/k8s/stub_ray.py").resolve()}
    )
    stub = folder / "stub.tar"
    write_image(stub, f"{IMAGE}:1", [(tools / "debian.tar").resolve(), folder / "layer.tar"])
    images = [*base_images(tools, folder), stub]
    began = time.monotonic()
    with cluster(tmp_path_factory.mktemp("cluster"), images) as running:
        print(f"node ready after {time.monotonic() - began:.0f} s")
        install_kuberay(running)
        print(f"operator runs after {time.monotonic() - began:.0f} s")
        running.kubectl("create", "namespace", NAMESPACE)
        running.kubectl(
            *("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        )
        took_s = helm(running, "install", values())
        print(f"installed in {took_s:.0f} s")
        yield running
    shutil.rmtree(folder)
    print(f"ended after {time.monotonic() - began:.0f} s")
    assert leftovers() == []


def test_the_service_becomes_ready_with_every_host_of_every_gang(kubernetes: Cluster) -> None:
    """In a namespace whose pods must be `restricted`."""
    is_ready(kubernetes)
    pods = items(kubernetes, "pods")
    assert {
        group: len(of_group(pods, group)) for group in ("head", "gateways", "prefill", "decode")
    } == {
        "head": 1,
        "gateways": 2,
        "prefill": 2,
        "decode": 2,
    }
    assert len({pod["metadata"]["labels"][GANG] for pod in of_group(pods, "prefill")}) == 1
    eventually(lambda: items(kubernetes, "pods"), all_ready, "every pod that is ready")


def all_ready(pods: list[dict[str, Any]]) -> bool:
    return all(map(ready, living(pods)))


def test_helm_test_asks_through_the_service(kubernetes: Cluster) -> None:
    said = kubernetes.helm("test", RELEASE, "-n", NAMESPACE, "--logs")
    assert "Phase:          Succeeded" in said
    assert "ok: models are listed" in said
    assert "ok: stub answers" in said


def test_the_service_leads_to_gateways_and_never_to_a_host_without_one(
    kubernetes: Cluster,
) -> None:
    url = f"{address(kubernetes)}/models"
    assert {httpx.get(url).status_code for _ in range(60)} == {200}


def test_a_node_that_is_emptied_takes_one_gateway_and_no_host_of_a_gang(
    kubernetes: Cluster,
) -> None:
    def allowed() -> dict[str, int]:
        return {
            each["metadata"]["name"].removeprefix(f"{NAME}-"): each["status"]["disruptionsAllowed"]
            for each in items(kubernetes, "poddisruptionbudgets")
        }

    wanted = {"head": 0, "gateways": 1, "prefill": 0, "decode": 0}
    eventually(allowed, lambda found: found == wanted, "budgets")


def test_the_loss_of_one_host_replaces_its_whole_gang_and_no_other(kubernetes: Cluster) -> None:
    before = items(kubernetes, "pods")
    gang, others = (
        of_group(before, "prefill"),
        of_group(before, "decode") + of_group(before, "head"),
    )
    kubernetes.kubectl(
        "delete", "pod", gang[0]["metadata"]["name"], "-n", NAMESPACE, "--wait=false"
    )
    after = eventually(
        lambda: of_group(items(kubernetes, "pods"), "prefill"),
        lambda pods: len(pods) == 2 and all(map(ready, pods)) and not uids(pods) & uids(gang),
        "gang of two new hosts",
    )
    assert len({pod["metadata"]["labels"][GANG] for pod in after}) == 1
    assert uids(others) <= uids(items(kubernetes, "pods"))
    is_ready(kubernetes)


def asked_limit(cluster: Cluster) -> str:
    """What the head's Serve was asked for, as text."""
    [head] = of_group(items(cluster, "pods"), "head")
    url = f"http://{head['status']['podIP']}:8265/api/serve/applications/"
    return json.dumps(httpx.get(url).json()["asked"])


def test_a_change_of_the_spec_reaches_serve_and_replaces_no_pod_and_is_rolled_back(
    kubernetes: Cluster,
) -> None:
    before = uids(items(kubernetes, "pods"))
    helm(kubernetes, "upgrade", values(spec__admission={"queue_requests_max": 7}))
    changed = "queue_requests_max: 7"
    eventually(lambda: asked_limit(kubernetes), lambda text: changed in text, "new limit")
    is_ready(kubernetes)
    assert uids(items(kubernetes, "pods")) == before
    kubernetes.helm("rollback", RELEASE, "1", "-n", NAMESPACE, "--wait")
    eventually(lambda: asked_limit(kubernetes), lambda text: changed not in text, "old limit")
    assert uids(items(kubernetes, "pods")) == before


def test_a_change_of_the_pods_starts_a_second_cluster_that_takes_over_when_it_is_whole(
    kubernetes: Cluster,
) -> None:
    old = service(kubernetes)["status"]["activeServiceStatus"]["rayClusterName"]
    refused = 0

    def ask() -> None:
        """For half a second, through the Service."""
        nonlocal refused
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            refused += not answers(kubernetes)

    def active() -> str:
        ask()
        return str(service(kubernetes)["status"]["activeServiceStatus"]["rayClusterName"])

    def its_pods() -> list[dict[str, Any]]:
        ask()
        return living(items(kubernetes, "pods", f"ray.io/cluster={new}"))

    helm(kubernetes, "upgrade", values(gpuHosts__extraEnv={"A": "1"}))
    new = eventually(active, lambda name: name != old, "second cluster that is active")
    pods = eventually(its_pods, all_ready, "every pod that is ready")
    assert len(pods) == 7
    is_ready(kubernetes)
    assert answers(kubernetes)
    print(f"{refused} requests were refused as the clusters changed")


def answers(kubernetes: Cluster) -> bool:
    try:
        return httpx.get(f"{address(kubernetes)}/models", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_is_removed_leaves_no_object_behind(kubernetes: Cluster) -> None:
    kubernetes.helm("uninstall", RELEASE, "-n", NAMESPACE)
    kinds = ("rayservices", "rayclusters", "services", "networkpolicies", "poddisruptionbudgets")
    eventually(
        lambda: [each for kind in kinds for each in items(kubernetes, kind)],
        lambda left: not left,
        "end of its objects",
    )
    eventually(lambda: living(items(kubernetes, "pods")), lambda left: not left, "end of its pods")
