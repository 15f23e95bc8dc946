"""Sixty-four GPU hosts that only the API server knows: gangs stay on a leaf, and none is half.

The scheduler, KubeRay and Kueue with its topologies are real; hosts and what they run are KWOK's.
"""

import json
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster.cluster import Cluster, cluster, leftovers, programs
from deploy.cluster.images import write_image, write_layer
from deploy.cluster.operators import (
    KUEUE,
    base_images,
    install_kuberay,
    install_kueue,
    program_image,
)
from tests.chart.rendering import CHART
from tests.k8s.marks import ON_A_CLUSTER
from tests.k8s.observing import NAMESPACE, eventually, items

pytestmark = ON_A_CLUSTER

LEAVES, HOSTS_PER_LEAF, GPUS = 8, 8, 8
LEAF = "topology.r1-serve.test/leaf"
POOL = "r1-serve.test/pool"
IMAGE = "r1-serve.test/stub"
GANG = "ray.io/worker-group-replica-name"
FAKE = "kwok.x-k8s.io/node"

QUEUES = f"""
apiVersion: kueue.x-k8s.io/v1beta2
kind: Topology
metadata: {{name: fabric}}
spec: {{levels: [{{nodeLabel: {LEAF}}}, {{nodeLabel: kubernetes.io/hostname}}]}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {{name: cpu}}
spec: {{nodeLabels: {{{POOL}: cpu}}}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {{name: gpu}}
spec: {{nodeLabels: {{{POOL}: gpu}}, topologyName: fabric}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {{name: serving}}
spec:
  namespaceSelector: {{}}
  resourceGroups:
    - coveredResources: [cpu, memory, ephemeral-storage, nvidia.com/gpu, rdma/ib]
      flavors:
        - name: cpu
          resources:
            - {{name: cpu, nominalQuota: 32}}
            - {{name: memory, nominalQuota: 16Gi}}
            - {{name: ephemeral-storage, nominalQuota: 0}}
            - {{name: nvidia.com/gpu, nominalQuota: 0}}
            - {{name: rdma/ib, nominalQuota: 0}}
        - name: gpu
          resources:
            - {{name: cpu, nominalQuota: 100000}}
            - {{name: memory, nominalQuota: 1000Ti}}
            - {{name: ephemeral-storage, nominalQuota: 1000Ti}}
            - {{name: nvidia.com/gpu, nominalQuota: 512}}
            - {{name: rdma/ib, nominalQuota: 64}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {{name: serving, namespace: {NAMESPACE}}}
spec: {{clusterQueue: serving}}
"""


def hosts() -> list[dict[str, Any]]:
    """The fake nodes."""
    capacity = {
        "cpu": "192",
        "memory": "2Ti",
        "ephemeral-storage": "10Ti",
        "pods": "110",
        "nvidia.com/gpu": str(GPUS),
        "rdma/ib": "1",
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": (name := f"gpu-{leaf}-{at}"),
                "annotations": {FAKE: "fake"},
                "labels": {
                    "kubernetes.io/hostname": name,
                    LEAF: f"leaf-{leaf}",
                    POOL: "gpu",
                },
            },
            "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        for leaf in range(LEAVES)
        for at in range(HOSTS_PER_LEAF)
    ]


def values(groups: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Of pools by their name: their gangs, and the hosts of each. The first is for prefill."""
    pools = []
    for role, (name, (gangs, nodes)) in zip(("prefill", "decode"), groups.items(), strict=False):
        gang = {"tensor_parallel": 1, "data_parallel": nodes * GPUS, "nodes": nodes}
        pools.append({"role": role, "node_group": name, "replicas": gangs, "gang": gang})
    if len(pools) == 1:
        pools[0]["role"] = "unified"
    return {
        "image": {"repository": IMAGE, "tag": "1"},
        "scheduling": {"gang": "kueue", "queue": "serving", "leafLabel": LEAF},
        "workerGroups": {
            name: {
                "replicas": gangs,
                "numOfHosts": nodes,
                "gpusPerHost": GPUS,
                "gpu": "H200",
                "rdma": True,
                "labels": {f"r1-serve/{name}": "true"},
            }
            for name, (gangs, nodes) in groups.items()
        },
        "spec": {"models": [{"path": "/opt/r1", "name": "DeepSeek-R1", "pools": pools}]},
        "head": {"memory": "64Mi"},
        "gateways": {"memory": "64Mi"},
    }


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of a real node and the fake ones, with KubeRay and Kueue."""
    tools = programs("kuberay-operator", "kueue", "kwok", "pause", "debian.tar")
    folder = Path(tmp_path_factory.mktemp("images"))
    stub = Path("tests/k8s/stub_ray.py").resolve()
    write_layer(folder / "layer.tar", {"/usr/local/bin/ray": stub})
    layers = [(tools / "debian.tar").resolve(), folder / "layer.tar"]
    write_image(folder / "stub.tar", f"{IMAGE}:1", layers)
    kueue = program_image(tools, "kueue", KUEUE, "/manager", folder)
    images = [*base_images(tools, folder), kueue, folder / "stub.tar"]
    with cluster(tmp_path_factory.mktemp("cluster"), images) as running:
        running.kubectl("label", "node", "node-1", f"{POOL}=cpu")
        text = yaml.dump_all(hosts(), Dumper=yaml.CSafeDumper)
        running.kubectl("create", "-f", "-", text=text)
        with kwok(running):
            install_kuberay(running)
            install_kueue(running)
            running.kubectl("create", "namespace", NAMESPACE)
            eventually(lambda: accepts(running, QUEUES), bool, "queues")
            yield running
    assert leftovers() == []


def accepts(cluster: Cluster, text: str) -> bool:
    """Whether they could be made; webhooks start after the program that serves them."""
    try:
        cluster.kubectl("apply", "-f", "-", text=text)
    except RuntimeError:
        return False
    return True


@contextmanager
def kwok(cluster: Cluster) -> Iterator[None]:
    """KWOK for the fake nodes, from this machine."""
    stages = cluster.tools / "kwok-stages"
    files = [*sorted(stages.glob("node/fast/*.yaml")), *sorted(stages.glob("pod/fast/*.yaml"))]
    with (cluster.folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(cluster.tools / "kwok"), "--kubeconfig", str(cluster.config)),
                f"--manage-nodes-with-annotation-selector={FAKE}=fake",
                "--node-lease-duration-seconds=40",
                *(f"--config={file}" for file in files if file.name != "kustomization.yaml"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def install(cluster: Cluster, release: str, groups: dict[str, tuple[int, int]]) -> None:
    cluster.helm(
        *("install", release, str(CHART), "-n", NAMESPACE, "-f", "-"),
        text=json.dumps(values(groups)),
    )


def gangs_of(cluster: Cluster, release: str) -> dict[str, list[dict[str, Any]]]:
    """The GPU pods by their gang."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    selector = f"app.kubernetes.io/instance={release},r1-serve/role=gpuHosts"
    for pod in items(cluster, "pods", selector):
        found[pod["metadata"]["labels"][GANG]].append(pod)
    return found


def leaf_of(pod: dict[str, Any]) -> str | None:
    """Of the host that it is on."""
    node = pod["spec"].get("nodeName")
    return None if node is None else f"leaf-{node.split('-')[1]}"


def all_bound(gangs: dict[str, list[dict[str, Any]]], count: int, hosts: int) -> bool:
    return len(gangs) == count and all(
        len(pods) == hosts and all(map(leaf_of, pods)) for pods in gangs.values()
    )


def test_every_gang_is_whole_and_on_one_leaf(kubernetes: Cluster) -> None:
    """Six gangs of four hosts and eight of two, of 64 hosts."""
    began = time.monotonic()
    install(kubernetes, "r1", {"prefill": (8, 2), "decode": (6, 4)})
    gangs = eventually(
        lambda: gangs_of(kubernetes, "r1"),
        lambda found: len(found) == 14 and all(all(map(leaf_of, pods)) for pods in found.values()),
        "14 gangs whose every pod has a host",
    )
    print(f"40 hosts for 14 gangs in {time.monotonic() - began:.0f} s")
    assert Counter(len(pods) for pods in gangs.values()) == {2: 8, 4: 6}
    leaves = {name: {leaf_of(pod) for pod in pods} for name, pods in gangs.items()}
    assert {name: found for name, found in leaves.items() if len(found) > 1} == {}
    used = Counter(pod["spec"]["nodeName"] for pods in gangs.values() for pod in pods)
    assert set(used.values()) == {1}, "a host has one gang's rank"


def test_a_gang_for_which_no_leaf_has_room_gets_no_host_at_all(kubernetes: Cluster) -> None:
    """Twenty-four hosts are free, and eight on one leaf at most: a gang of nine hosts fits none."""
    install(kubernetes, "r2", {"wide": (1, 9)})
    time.sleep(20)
    assert gangs_of(kubernetes, "r2") == {}
    kubernetes.helm("uninstall", "r2", "-n", NAMESPACE)


def test_gangs_for_which_hosts_are_missing_wait_whole_until_they_are_free(
    kubernetes: Cluster,
) -> None:
    """Seven gangs of four hosts are 28, and 24 are free: not even one starts, until others end."""
    install(kubernetes, "r3", {"late": (7, 4)})
    time.sleep(20)
    assert gangs_of(kubernetes, "r3") == {}
    kubernetes.helm("uninstall", "r1", "-n", NAMESPACE)
    gangs = eventually(
        lambda: gangs_of(kubernetes, "r3"),
        lambda found: all_bound(found, 7, 4),
        "seven whole gangs",
    )
    assert all(len({leaf_of(pod) for pod in pods}) == 1 for pods in gangs.values())
