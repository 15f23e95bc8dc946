"""The chart on a real API server: what is rendered is accepted, installed, changed and removed."""

import copy
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.chart.api_server import ApiServer, api_server
from tests.chart.rendering import CHART, PROFILES, template

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

NAMESPACE = "serving"
RANDOM_VALUES = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One for all tests, with a namespace."""
    with api_server(tmp_path_factory.mktemp("cluster")) as server:
        # No controller runs here, which would make the account of a new namespace.
        for made in (
            server.kubectl("create", "namespace", NAMESPACE),
            server.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE),
        ):
            assert made.returncode == 0, made.stderr
        yield server


def check_accepted(server: ApiServer, profile: str, values: dict[str, Any]) -> list[str]:
    """Renders, and asks the server about each object; what it was that it took."""
    said = template(profile, values, apis=("ray.io/v1/RayService",))
    assert said.returncode == 0, (said.stderr, values)
    taken = []
    for thing in yaml.load_all(said.stdout, yaml.CSafeLoader):
        if thing is not None:
            assert (refusal := server.refusal(thing, NAMESPACE)) is None, (refusal, values)
            taken.append(thing["kind"])
    return taken


@pytest.mark.parametrize("profile", PROFILES)
def test_every_object_of_a_profile_is_accepted(server: ApiServer, profile: str) -> None:
    assert "RayService" in check_accepted(server, profile, {})


def test_a_misspelt_field_would_be_refused(server: ApiServer) -> None:
    """Or the tests here would show nothing."""
    said = template("b200", {"gpuHosts": {"patch": {"hostNetwrk": True}}})
    [service] = [
        thing
        for thing in yaml.load_all(said.stdout, yaml.CSafeLoader)
        if thing is not None and thing["kind"] == "RayService"
    ]
    refusal = server.refusal(service, NAMESPACE)
    assert refusal is not None
    assert "hostNetwrk" in refusal


# What an operator may set, each with values that make sense; a random choice of them is made.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "fullnameOverride": ("a", "serving-r1", "x" * 47),
    "commonLabels": ({"team": "search"}, {"a/b": "c"}),
    "commonAnnotations": ({"note": "one"},),
    "global.imageRegistry": ("registry.example:5000/mirror",),
    "image.tag": ("1.2.3",),
    "image.digest": ("sha256:" + "0" * 64,),
    "image.pullPolicy": ("Always", "Never"),
    "image.pullSecrets": (["a"], ["a", "b"]),
    "ray.upgrade": ("NewCluster",),
    "ray.auth": (False,),
    "ray.authSecret": ("ray-token",),
    "ray.redis": ({"address": "redis://redis:6379", "passwordSecret": "redis"},),
    "head.cpu": ("2", "500m"),
    "head.memory": ("8Gi",),
    "gateways.nodeSelector": ({"pool": "cpu"},),
    "gateways.annotations": ({"a": "b"},),
    "gpuHosts.cpu": ("96",),
    "gpuHosts.memory": ("1.5Ti", "2000Gi"),
    "gpuHosts.shm": ("128Gi", ""),
    "gpuHosts.ephemeralStorage": ("1Ti",),
    "gpuHosts.nodeSelector": ({"a": "b"},),
    "gpuHosts.tolerations": ([], [{"operator": "Exists"}]),
    "gpuHosts.runtimeClassName": ("nvidia",),
    "gpuHosts.priorityClassName": ("serving",),
    "gpuHosts.extraEnv": ({"A": "1", "B": "two words"},),
    "gpuHosts.extra": ("volume",),
    "gpuHosts.patch": ({"hostIPC": True}, {"schedulerName": "mine"}),
    "network.hostNetwork": (True,),
    "network.rdma": ({"resource": "rdma/roce", "count": 8, "networks": "net1,net2"},),
    "network.nccl": ({"SOCKET_IFNAME": "eth0", "IB_HCA": "mlx5"},),
    "network.ucx": ({"NET_DEVICES": "mlx5_0:1"},),
    "scheduling": (
        {"gang": "kueue", "queue": "gpus", "leafLabel": "topology/leaf"},
        {"gang": "volcano"},
        {"gang": "yunikorn", "queue": "root.gpus"},
        {"gang": "kai", "queue": "gpus"},
        {"spreadLabel": "topology/leaf"},
        {"products": {"H200": ["NVIDIA-H200"], "B200": ["NVIDIA-B200", "B200-SXM"]}},
    ),
    "dra": ({"enabled": True},),
    "weights.path": (
        *("pvc://r1/DeepSeek", "hostPath:///data/r1", "oci://registry/r1:1"),
        *("hf://deepseek-ai/DeepSeek-R1-0528", "s3://bucket/r1"),
    ),
    "weights.claims": ({"r1": {"create": True}}, {"r1": {"create": True, "size": "1Ti"}}),
    "weights.bytesPerS": (2e8, 2.5e10),
    "weights.cacheHostPath": ("/data/cache",),
    "weights.hubTokenSecret": ("hub",),
    "weights.bucketSecret": ("bucket",),
    "keys": ({"secret": "keys"}, {"secret": "keys", "testSecret": "key"}),
    "loadTest": ({"enabled": True}, {"enabled": True, "keySecret": "key", "claim": "results"}),
    "service": ({"type": "LoadBalancer"}, {"annotations": {"a": "b"}}),
    "ingress": ({"enabled": True, "className": "nginx", "host": "r1.example", "tlsSecret": "t"},),
    "networkPolicies": (
        {"enabled": False},
        {"clients": [{"podSelector": {}}], "prometheus": [{"namespaceSelector": {}}]},
    ),
    "disruptionBudgets": (False,),
    "serviceAccount": ({"create": False}, {"name": "mine", "annotations": {"a": "b"}}),
    "security": ({"runAsUser": None, "fsGroup": None}, {"runAsUser": 2000}),
    "spec.gateway": ({"replicas": 4, "port": 9000}, {"stream_s_max": 14_400}),
    "spec.fleet": ({"drain_s": 60}, {"cut_off_after_s": 10.5}),
}


def drawn(seed: int) -> tuple[str, dict[str, Any]]:
    """A profile and values on top of it, some eight of the choices."""
    chance = random.Random(seed)
    profile = chance.choice(PROFILES)
    values: dict[str, Any] = {}
    for path in chance.sample(sorted(_CHOICES), chance.randint(1, 15)):
        value = copy.deepcopy(chance.choice(_CHOICES[path]))
        if path == "gpuHosts.extra":
            more = {"extraVolumes": {"x": {"emptyDir": {}}}, "extraMounts": {"x": "/x"}}
            values.setdefault("gpuHosts", {}).update(more)
        elif path == "weights.path":
            models = yaml.safe_load((CHART / "profiles" / f"{profile}.yaml").read_text())
            name = models["spec"]["models"][0].get("name", "DeepSeek-R1-0528")
            values.setdefault("weights", {})["models"] = {name: value}
        else:
            first, _, second = path.partition(".")
            if second:
                values.setdefault(first, {})[second] = value
            else:
                values[first] = value
    host = values.get("gpuHosts", {})
    if profile == "sim" and host.get("shm"):
        host["memory"] = "512Gi"  # or the profile's own would be too little for it
    return profile, values


def test_random_valid_values_render_to_objects_that_are_accepted(server: ApiServer) -> None:
    def check(seed: int) -> int:
        return len(check_accepted(server, *drawn(seed)))

    with ThreadPoolExecutor(2) as pool:
        objects = sum(pool.map(check, range(RANDOM_VALUES)))
    print(f"{RANDOM_VALUES} random values: {objects} objects, all accepted")
    assert objects > 5 * RANDOM_VALUES


def test_it_is_installed_changed_rolled_back_and_removed(server: ApiServer) -> None:
    profile = str(CHART / "profiles/h200-wide-ep.yaml")

    def helm(verb: str, values: dict[str, Any]) -> None:
        ended = server.helm(
            *(verb, "r1", str(CHART), "-n", NAMESPACE, "-f", profile, "-f", "-"),
            values=json.dumps(values),
        )
        assert ended.returncode == 0, ended.stderr

    def seen(kind: str) -> dict[str, Any]:
        got = server.kubectl("get", kind, "-n", NAMESPACE, "-o", "json")
        assert got.returncode == 0, got.stderr
        return {each["metadata"]["name"]: each for each in json.loads(got.stdout)["items"]}

    claims = {"weights": {"claims": {"r1": {"create": True}}}}
    helm("install", claims)
    first = seen("rayservices")["r1-r1-serve"]
    helm("upgrade", claims | {"spec": {"admission": {"queue_requests_max": 7}}})
    second = seen("rayservices")["r1-r1-serve"]
    assert "queue_requests_max: 7" in second["spec"]["serveConfigV2"]
    assert first["spec"]["rayClusterConfig"] == second["spec"]["rayClusterConfig"]
    back = server.helm("rollback", "r1", "1", "-n", NAMESPACE)
    assert back.returncode == 0, back.stderr
    assert seen("rayservices")["r1-r1-serve"]["spec"] == first["spec"]
    gone = server.helm("uninstall", "r1", "-n", NAMESPACE)
    assert gone.returncode == 0, gone.stderr
    for kind in ("rayservices", "networkpolicies", "poddisruptionbudgets", "configmaps"):
        assert not [name for name in seen(kind) if name.startswith("r1-")], kind
    assert list(seen("persistentvolumeclaims")) == ["r1"], "weights are kept"


def test_a_secret_that_is_not_there_is_asked_for_before_anything_is_made(
    server: ApiServer,
) -> None:
    ended = server.helm(
        *("install", "r2", str(CHART), "-n", NAMESPACE),
        *("-f", str(CHART / "profiles/b200.yaml"), "-f", "-"),
        values=json.dumps({"keys": {"secret": "r1-keys"}}),
    )
    assert ended.returncode != 0
    assert "there is no Secret r1-keys in namespace serving" in ended.stderr
    assert "kubectl create secret generic r1-keys -n serving" in ended.stderr
    assert server.helm("list", "-n", NAMESPACE, "-q").stdout.strip() == ""


def test_a_name_that_kuberay_would_refuse_never_gets_there(server: ApiServer) -> None:
    ended = server.helm(
        *("install", "r" * 50, str(CHART), "-n", NAMESPACE),
        *("-f", str(CHART / "profiles/b200.yaml")),
    )
    assert "KubeRay allows a RayService 47" in ended.stderr
