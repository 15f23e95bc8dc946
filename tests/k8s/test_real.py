"""The chart for real: our image, Ray, vLLM on the CPU with r1-nano, under kubelet and KubeRay."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from deploy.cluster.cluster import Cluster, cluster, leftovers, programs
from deploy.cluster.images import write_image
from deploy.cluster.operators import base_images, install_kuberay
from tests.chart.rendering import CHART
from tests.k8s.marks import ON_A_CLUSTER
from tests.k8s.observing import (
    NAMESPACE,
    RELEASE,
    address,
    eventually,
    items,
    of_group,
    ready,
    uids,
)
from tests.live.traffic import Traffic

pytestmark = [*ON_A_CLUSTER, pytest.mark.filterwarnings("ignore::ResourceWarning")]

IMAGE = "r1-serve.test/cpu"
ENVIRONMENT = {
    "HOME": "/tmp",
    "PATH": "/opt/r1-serve/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}
ENGINE = {
    "kind": "vllm",
    "device": "cpu",
    "dtype": "float32",
    "start_timeout_s": 400,
    "args": ["--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)],
}
VALUES: dict[str, Any] = {
    "image": {"repository": IMAGE, "tag": "1"},
    "workerGroups": {
        role: {
            "replicas": 1,
            "numOfHosts": 1,
            "gpusPerHost": 1,
            "labels": {f"r1-serve/{role}": "true"},
        }
        for role in ("prefill", "decode")
    },
    "spec": {
        "models": [
            {
                "path": "/opt/r1-serve/r1-nano",
                "name": "DeepSeek-R1",
                "max_model_len": 2048,
                "engine": ENGINE,
                "pools": [{"role": role, "node_group": role} for role in ("prefill", "decode")],
            }
        ],
        "api": {"honor_sampling": True},
        "gateway": {"replicas": 2, "stream_s_max": 600},
        "fleet": {"health_period_s": 1, "stuck_after_s": 60, "drain_s": 60},
    },
    "head": {"cpu": "2", "memory": "3Gi"},
    "gateways": {"cpu": "2", "memory": "2Gi"},
    "gpuHosts": {
        "cpu": "4",
        "memory": "4Gi",
        "shm": "512Mi",
        "ephemeralStorage": "",
        "tolerations": [],
        # Ray starts its workers at 15: two cores with a whole cluster on them would starve engines.
        "extraEnv": {"RAY_worker_niceness": "0"},
    },
    "monitoring": {"podMonitor": False},
}
QUESTION = "Tom has 29 apples and gets 35 more. How many apples does Tom have now?"
QUESTIONS = (QUESTION, "What is 17 + 25?", "What is 48 + 36?", "What is 91 - 27?")
BEST = {"temperature": 0.0}


def helm(cluster: Cluster, verb: str, given: dict[str, Any]) -> None:
    cluster.helm(
        *(verb, RELEASE, str(CHART), "-n", NAMESPACE, "--wait", "--timeout", "1800s", "-f", "-"),
        text=json.dumps(given),
        timeout_s=1860,
    )


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the operator and the chart on it, whose gangs serve; afterwards, nothing."""
    folder = Path(tmp_path_factory.mktemp("images"))
    tools = programs("kuberay-operator", "pause", "debian.tar")
    began = time.monotonic()
    made = subprocess.run(
        ["deploy/images/local.sh", str(folder)], check=True, stdout=subprocess.PIPE, text=True
    )
    layers = [Path(line).resolve() for line in made.stdout.split()]
    write_image(folder / "cpu.tar", f"{IMAGE}:1", layers, ENVIRONMENT)
    print(f"image made in {time.monotonic() - began:.0f} s: {_gib(folder / 'cpu.tar'):.1f} GiB")
    images = [*base_images(tools, folder), folder / "cpu.tar"]
    began = time.monotonic()
    with cluster(tmp_path_factory.mktemp("cluster"), images) as running:
        print(f"node with the image ready after {time.monotonic() - began:.0f} s")
        install_kuberay(running)
        running.kubectl("create", "namespace", NAMESPACE)
        running.kubectl(
            *("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        )
        since = time.monotonic()
        helm(running, "install", VALUES)
        eventually(lambda: items(running, "rayservices")[0], ready, "RayService that is Ready")
        print(f"helm install to Ready: {time.monotonic() - since:.0f} s")
        yield running
    for image in folder.iterdir():
        image.unlink()
    print(f"ended after {time.monotonic() - began:.0f} s")
    assert leftovers() == []


def _gib(path: Path) -> float:
    return path.stat().st_size / 2**30


@pytest.fixture(scope="module")
def url(kubernetes: Cluster) -> str:
    return address(kubernetes)


def test_a_chat_completion_through_the_service_by_the_official_client(
    kubernetes: Cluster, url: str
) -> None:
    """Its prompt is prefilled in one pod, and its KV moved to another."""
    client = openai.OpenAI(base_url=url, api_key="none", timeout=120, max_retries=0)
    answer = client.chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}], temperature=0.0
    )
    message = answer.choices[0].message
    assert message.content == "Tom has 64 apples."
    assert message.model_extra is not None
    assert "That makes 6 4, so 64." in message.model_extra["reasoning_content"]
    decided = "".join(
        kubernetes.kubectl(
            *("exec", "-n", NAMESPACE, pod["metadata"]["name"], "-c", "ray", "--"),
            *("bash", "-c", "cat /tmp/r1-serve/decisions-*.jsonl"),
        )
        for pod in of_group(items(kubernetes, "pods"), "gateways")
    )
    assert '"decision":"transfer"' in decided


def test_helm_test_gets_a_completion(kubernetes: Cluster) -> None:
    said = kubernetes.helm("test", RELEASE, "-n", NAMESPACE, "--logs")
    assert "Phase:          Succeeded" in said
    assert "answers" in said


def gateways(kubernetes: Cluster) -> tuple[str, set[str]]:
    """What Serve says of them: their status, and which replicas run."""
    [head] = of_group(items(kubernetes, "pods"), "head")
    secrets = [each for each in items(kubernetes, "secrets") if "auth_token" in each["data"]]
    token = base64.b64decode(secrets[0]["data"]["auth_token"]).decode()
    told = httpx.get(
        f"http://{head['status']['podIP']}:8265/api/serve/applications/",
        headers={"x-ray-authorization": f"Bearer {token}"},
        timeout=30,
    ).json()
    found = told["applications"]["r1-serve"]["deployments"]["gateway"]
    return found["status"], {each["replica_id"] for each in found["replicas"]}


def test_an_upgrade_under_streams_breaks_none_and_replaces_no_pod(
    kubernetes: Cluster, url: str
) -> None:
    pods = uids(items(kubernetes, "pods"))
    _, old = gateways(kubernetes)
    traffic = Traffic(url, QUESTIONS, BEST)
    traffic.learn()
    since = time.monotonic()
    traffic.start()
    changed = json.loads(json.dumps(VALUES))
    changed["spec"]["admission"] = {"queue_requests_max": 77}
    helm(kubernetes, "upgrade", changed)
    eventually(
        lambda: gateways(kubernetes),
        lambda told: told[0] == "HEALTHY" and not told[1] & old,
        "gateways that are all new",
    )
    traffic.settle(time.monotonic())
    traffic.stop()
    tally = traffic.tally(since, time.monotonic())
    print(
        f"upgrade in {time.monotonic() - since:.0f} s under {tally.streams} streams, "
        f"{len(tally.broken)} broken, longest pause {tally.pause_s:.1f} s"
    )
    assert tally.broken == []
    assert tally.different == []
    assert tally.streams >= len(QUESTIONS)
    assert uids(items(kubernetes, "pods")) == pods
