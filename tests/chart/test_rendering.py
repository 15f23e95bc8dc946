"""What the chart renders: the same under every Helm, and what r1-serve and Kubernetes need."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart.write import PROFILES as PLANNED
from deploy.chart.write import write_profile
from orchestrator.placement import node_label
from orchestrator.spec import Spec, parse_spec
from tests.chart.rendering import CHART, PROFILES, objects, pods, template

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SCALED = {
    "ttft_s": 2.0,
    "tpot_s": 0.05,
    "pools": [{"role": "unified", "gangs_max": 1}],
}


def service(profile: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    rendered = objects(profile, values)
    [found] = [each for key, each in rendered.items() if key.startswith("RayService/")]
    return found


def served(spec: Spec) -> list[dict[str, Any]]:
    """The applications that `r1-serve up` would give to Serve."""
    from orchestrator.runtime.serve_config import serve_config  # imports Ray, which warns

    return serve_config(spec)["applications"]  # type: ignore[no-any-return]


def whole_spec(rendered: dict[str, dict[str, Any]]) -> Spec:
    """The spec of the values, as the ConfigMap has it."""
    [text] = [
        each["data"]["spec.yaml"]
        for each in rendered.values()
        if each["kind"] == "ConfigMap" and "spec.yaml" in each["data"]
    ]
    return parse_spec(text, "the chart's spec")


def read_parts(application: dict[str, Any]) -> dict[str, Any]:
    """The application with what each deployment reads as a spec instead of a text."""
    found = copy.deepcopy(application)
    for deployment in found["deployments"]:
        variables = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
        variables.update({k: parse_spec(v, deployment["name"]) for k, v in variables.items()})
    return found


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


@pytest.mark.parametrize("profile", PROFILES)
def test_both_helms_render_the_same_and_always_the_same(profile: str) -> None:
    told = [template(profile, helm=helm) for helm in ("helm3", "helm4", "helm4")]
    assert {each.returncode for each in told} == {0}, told[0].stderr
    assert len({each.stdout for each in told}) == 1


@pytest.mark.parametrize("profile", sorted(PLANNED))
def test_a_profile_is_what_the_planner_writes(profile: str, tmp_path: Path) -> None:
    written = tmp_path / "values.yaml"
    write_profile(profile, written)
    assert written.read_text() == (CHART / "profiles" / f"{profile}.yaml").read_text()


@pytest.mark.parametrize("profile", PROFILES)
def test_r1_serve_is_given_the_spec_of_the_values(profile: str) -> None:
    rendered = objects(profile)
    spec = whole_spec(rendered)
    values = yaml.safe_load((CHART / "profiles" / f"{profile}.yaml").read_text())
    [model], [asked] = spec.models, values["spec"]["models"]
    assert [pool.role.value for pool in model.pools] == [pool["role"] for pool in asked["pools"]]
    assert spec.gateway.host == "0.0.0.0"
    found = rendered["RayService/r1-r1-serve"]
    [application] = yaml.safe_load(found["spec"]["serveConfigV2"])["applications"]
    [ours] = served(spec)
    assert read_parts(application) == read_parts(ours)


def test_a_scaled_model_has_our_policy_and_ray_s_autoscaler() -> None:
    values = yaml.safe_load((CHART / "profiles/h200-1x8.yaml").read_text())
    models = copy.deepcopy(values["spec"]["models"])
    models[0]["scaling"] = SCALED
    rendered = objects("h200-1x8", {"spec": {"models": models}})
    found = rendered["RayService/r1-r1-serve"]
    [application] = yaml.safe_load(found["spec"]["serveConfigV2"])["applications"]
    [ours] = served(whole_spec(rendered))
    assert read_parts(application) == read_parts(ours)
    assert "autoscaling_policy" in application
    cluster = found["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"]
    [group] = [each for each in cluster["workerGroupSpecs"] if each["groupName"] == "unified"]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_has_the_environment_that_serve_reads(profile: str) -> None:
    rendered = objects(profile)
    from orchestrator.runtime.application import serve_environment  # imports Ray, which warns

    wanted = serve_environment(whole_spec(rendered))
    del wanted["RAY_AUTH_MODE"]  # the operator's, with ray.auth
    for name, pod in pods(rendered).items():
        [container] = pod["spec"]["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert wanted.items() <= environment.items(), name


@pytest.mark.parametrize("profile", PROFILES)
def test_a_group_is_a_pool_s_gangs(profile: str) -> None:
    rendered = objects(profile)
    found, spec = rendered["RayService/r1-r1-serve"], whole_spec(rendered)
    groups = {
        each["groupName"]: each for each in found["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    for pool in spec.models[0].pools:
        assert pool.node_group is not None
        group = groups[pool.node_group]
        assert group["numOfHosts"] == pool.gang.nodes
        assert int(group["rayStartParams"]["num-gpus"]) == pool.gang.gpus_per_node
        assert group["replicas"] >= pool.replicas
        assert group["labels"] == dict(node_label(pool.node_group))


@pytest.mark.parametrize("profile", PROFILES)
def test_pods_are_given_the_time_that_thoughts_and_weights_take(profile: str) -> None:
    rendered = objects(profile)
    found, spec = rendered["RayService/r1-r1-serve"], whole_spec(rendered)
    wait_s = seconds(found["metadata"]["annotations"]["ray.io/initializing-timeout"])
    weights = max(pool.node_weights_bytes or 0 for pool in spec.models[0].pools)
    assert wait_s >= 600 + 2 * weights / 1e9
    for name, pod in pods(rendered).items():
        [container] = pod["spec"]["containers"]
        assert pod["spec"]["terminationGracePeriodSeconds"] > spec.fleet.drain_s + 15
        if name != "head":
            probe = container["startupProbe"]
            assert probe["periodSeconds"] * probe["failureThreshold"] >= wait_s


def test_faster_storage_shortens_the_start() -> None:
    slow, fast = (
        seconds(
            service("b200", {"weights": {"bytesPerS": rate}})["metadata"]["annotations"][
                "ray.io/initializing-timeout"
            ]
        )
        for rate in (0.5e9, 10e9)
    )
    assert slow > 2 * fast


@pytest.mark.parametrize("profile", PROFILES)
def test_pods_are_restricted_but_for_what_rdma_needs(profile: str) -> None:
    rendered = objects(profile)
    values = yaml.safe_load((CHART / "profiles" / f"{profile}.yaml").read_text())
    for name, pod in pods(rendered).items():
        [container] = pod["spec"]["containers"]
        security = container["securityContext"]
        rdma = values["workerGroups"].get(name, {}).get("rdma", False)
        assert security["capabilities"] == {"drop": ["ALL"]} | (
            {"add": ["IPC_LOCK"]} if rdma else {}
        )
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert not container["image"].endswith(":latest")


def test_amd_s_gpus_have_amd_s_resource() -> None:
    limits = pods(objects("mi300x"))["unified"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["amd.com/gpu"] == 8
    assert "nvidia.com/gpu" not in limits


def test_gpus_are_claimed_or_counted_and_never_both() -> None:
    rendered = objects("h200-1x8", {"dra": {"enabled": True}})
    pod = pods(rendered)["unified"]["spec"]
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpus"}]
    [claim] = pod["resourceClaims"]
    made = rendered[f"ResourceClaimTemplate/{claim['resourceClaimTemplateName']}"]
    [request] = made["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 8


@pytest.mark.parametrize(
    ("path", "there", "mounted"),
    [
        ("pvc://r1/DeepSeek", "/mnt/weights/r1/DeepSeek", "/mnt/weights/r1"),
        ("hostPath:///data/r1", "/data/r1", "/data/r1"),
        ("oci://registry/r1:1", "/mnt/images/DeepSeek-R1-0528", "/mnt/images/DeepSeek-R1-0528"),
        ("hf://deepseek-ai/DeepSeek-R1-0528", None, "/var/cache/r1-serve"),
        ("s3://bucket/r1", None, None),
    ],
)
def test_weights_are_mounted_where_the_spec_says_they_are(
    path: str, there: str | None, mounted: str | None
) -> None:
    rendered = objects("h200-1x8", {"weights": {"models": {"DeepSeek-R1-0528": path}}})
    said = whole_spec(rendered).models[0].path
    assert said == (path if there is None or path.startswith("pvc") else there)
    for group in ("unified", "gateways"):
        mounts = pods(rendered)[group]["spec"]["containers"][0]["volumeMounts"]
        if mounted is not None:
            assert mounted in {mount["mountPath"] for mount in mounts}


@pytest.mark.parametrize(
    "values",
    [
        {"monitoring": {"podMonitor": True, "interval": "5s", "labels": {"release": "p"}}},
        {"networkPolicies": {"enabled": False}},
        {"disruptionBudgets": False},
        {"ingress": {"enabled": True, "host": "r1.example"}},
        {"service": {"annotations": {"a": "b"}}},
        {
            "extraObjects": {
                "a": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
            }
        },
    ],
)
def test_what_does_not_concern_pods_leaves_them_byte_for_byte(values: dict[str, Any]) -> None:
    """Any change of a pod would start a second cluster."""
    cluster = service("h200-wide-ep")["spec"]["rayClusterConfig"]
    assert service("h200-wide-ep", values)["spec"]["rayClusterConfig"] == cluster


def test_a_change_of_the_spec_reaches_serve_and_no_pod() -> None:
    values = {"spec": {"admission": {"queue_requests_max": 7}}}
    before, after = service("h200-wide-ep"), service("h200-wide-ep", values)
    assert before["spec"]["rayClusterConfig"] == after["spec"]["rayClusterConfig"]
    parts = [
        yaml.safe_load(each["spec"]["serveConfigV2"])["applications"][0]["deployments"]
        for each in (before, after)
    ]
    assert "queue_requests_max: 7" in str(parts[1][0]), "gateways are replaced"
    assert parts[0][1:] == parts[1][1:], "gangs are not"


def test_labels_of_the_release_are_on_everything() -> None:
    values = {"commonLabels": {"team": "search"}, "monitoring": {"podMonitor": True}}
    for key, each in objects("h200-wide-ep", values).items():
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "r1", key
        assert labels["team"] == "search", key
        assert each["metadata"].get("namespace", "serving") == "serving", key


def test_pods_that_are_monitored_tell_of_their_gateways_engines_and_gpus() -> None:
    rendered = objects("h200-1x8", {"monitoring": {"podMonitor": True, "telemetry": True}})
    [monitor] = [each for key, each in rendered.items() if key.startswith("PodMonitor/")]
    ports = [each.get("port") for each in monitor["spec"]["podMetricsEndpoints"]]
    assert "telemetry" in ports
    for name, pod in pods(rendered).items():
        found = [each for each in pod["spec"]["containers"] if each["name"] == "telemetry"]
        if name == "head":
            assert found == []
            continue
        [container] = found
        [ray] = [each for each in pod["spec"]["containers"] if each["name"] == "ray"]
        assert pod["spec"]["containers"][0] is ray  # KubeRay takes the first for Ray's
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert {"name": "tmp", "mountPath": "/tmp"} in ray["volumeMounts"]
        gpus = "nvidia.com/gpu" in ray["resources"]["limits"]
        assert f"--gpus={'nvml' if gpus else 'none'}" in container["command"]
    assert "telemetry" not in str(pods(objects("h200-1x8")))
