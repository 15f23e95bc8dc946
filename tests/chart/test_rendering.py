"""What the chart renders: the same under every Helm, and what r1-serve and Kubernetes need."""

import copy
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart.write import PROFILES as PLANNED
from deploy.chart.write import REFERENCES, RENDERED, rendered, write_profile
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
    return service_of(objects(profile, values))


def service_of(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
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
    """The application with what each deployment reads as a spec instead of a text, and without
    where gateways are: only a chart has pods for them.
    """
    found = copy.deepcopy(application)
    for deployment in found["deployments"]:
        deployment["ray_actor_options"].pop("label_selector", None)
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


@pytest.mark.parametrize("profile", PROFILES)
def test_what_comes_to_the_service_goes_to_pods_that_have_a_gateway(profile: str) -> None:
    """KubeRay's Service selects every worker; a host of a gang need not have a proxy."""
    rendered = objects(profile)
    found = service_of(rendered)
    [port] = found["spec"]["serveService"]["spec"]["ports"]
    named = {
        name
        for name, pod in pods(rendered).items()
        for each in pod["spec"]["containers"][0].get("ports", [])
        if each["name"] == port["targetPort"]
    }
    assert named == {"gateways"}
    [application] = yaml.safe_load(found["spec"]["serveConfigV2"])["applications"]
    selector = application["deployments"][0]["ray_actor_options"]["label_selector"]
    labels = {group["groupName"]: group["labels"] for group in worker_groups(found)}
    assert [name for name, own in labels.items() if selector.items() <= own.items()] == ["gateways"]


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


def test_under_kueue_each_gang_is_a_group_that_stays_on_its_leaf() -> None:
    """Kueue knows no hosts of one gang within a group."""
    asked = {"gang": "kueue", "queue": "gpus", "leafLabel": "leaf"}
    values = {"scheduling": asked, "workerGroups": {"decode": {"replicas": 3}}}
    plain = service("h200-wide-ep", {"workerGroups": values["workerGroups"]})
    [one] = [g for g in worker_groups(plain) if g["groupName"] == "decode"]
    groups = [
        g for g in worker_groups(service("h200-wide-ep", values)) if "decode" in g["groupName"]
    ]
    assert [g["groupName"] for g in groups] == ["decode-0", "decode-1", "decode-2"]
    for group in groups:
        assert (group["replicas"], group["numOfHosts"]) == (1, one["numOfHosts"])
        assert group["labels"] == one["labels"]
        metadata = group["template"]["metadata"]
        assert metadata["annotations"] == {"kueue.x-k8s.io/podset-required-topology": "leaf"}
        assert metadata["labels"] == one["template"]["metadata"]["labels"]


def worker_groups(service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return found


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


def test_the_cluster_s_ray_is_the_image_s() -> None:
    pins = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    version = service("b200")["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray[serve]=={version}" in pins


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_is_placed_on_the_head(profile: str) -> None:
    head = service(profile)["spec"]["rayClusterConfig"]["headGroupSpec"]
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    [container] = head["template"]["spec"]["containers"]
    assert not [name for name in container["resources"]["limits"] if "gpu" in name]


def test_no_host_of_a_gang_is_evicted_and_gateways_one_by_one() -> None:
    rendered = objects("h200-wide-ep")
    least = {
        each["spec"]["selector"]["matchLabels"]["r1-serve/group"]: each["spec"]["minAvailable"]
        for each in rendered.values()
        if each["kind"] == "PodDisruptionBudget"
    }
    assert least == {"head": 1, "gateways": 1, "prefill": 1, "decode": 2}
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(rendered).items()}
    assert {name: own["r1-serve/group"] for name, own in labels.items()} == {n: n for n in least}


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


RULES = """groups:
  - name: slo
    rules:
      - alert: SlowFirstToken
        expr: r1_ttft > THRESHOLD
        annotations: {summary: "{{ $labels.pool }} is slow"}
"""
MONITORED = {
    "monitoring": {
        "labels": {"release": "prometheus"},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "r1"}},
    }
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart with rules and a dashboard that it does not have."""
    copied = tmp_path / "r1-serve"
    shutil.copytree(CHART, copied)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(copied / "files" / folder, ignore_errors=True)
        (copied / "files" / folder).mkdir()
    (copied / "files/rules/slo.yaml").write_text(RULES.replace("THRESHOLD", "2"))
    (copied / "files/dashboards/serving.json").write_text('{"title": "{{instance}}", "uid": "x"}')
    return copied


def test_rules_and_dashboards_are_the_chart_s_files(chart: Path) -> None:
    found = objects("h200-wide-ep", MONITORED, chart)
    rule = found["PrometheusRule/r1-r1-serve-slo"]
    assert rule["spec"] == yaml.safe_load(RULES.replace("THRESHOLD", "2"))
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    board = found["ConfigMap/r1-r1-serve-dashboard-serving"]
    assert json.loads(board["data"]["serving.json"]) == {"title": "{{instance}}", "uid": "x"}
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["annotations"] == {"grafana_folder": "r1"}
    assert not {
        key for key in objects("h200-wide-ep", None, chart) if "slo" in key or "board" in key
    }


def test_a_change_of_a_threshold_or_a_dashboard_leaves_the_rayservice_byte_for_byte(
    chart: Path,
) -> None:
    def text() -> tuple[str, str]:
        found = objects("h200-wide-ep", MONITORED, chart)
        service = found.pop("RayService/r1-r1-serve")
        return yaml.safe_dump(service), yaml.safe_dump(found)

    before = text()
    (chart / "files/rules/slo.yaml").write_text(RULES.replace("THRESHOLD", "3"))
    with_rule = text()
    (chart / "files/dashboards/serving.json").write_text('{"title": "Serving", "uid": "x"}')
    with_both = text()
    assert before[0] == with_rule[0] == with_both[0]
    assert len({before[1], with_rule[1], with_both[1]}) == 3


def test_a_dashboard_that_no_configmap_takes_is_refused(chart: Path) -> None:
    (chart / "files/dashboards/large.json").write_text('{"title": "' + "x" * 1_000_000 + '"}')
    ended = template("b200", MONITORED, chart=chart)
    assert "large.json has 1000013 bytes, a ConfigMap takes 1000000" in ended.stderr


@pytest.mark.parametrize("name", REFERENCES)
def test_what_is_rendered_for_reference_is_what_the_chart_renders(name: str) -> None:
    assert (RENDERED / f"{name}.yaml").read_text() == rendered(name), "run `make chart`"


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


def test_a_load_test_is_a_job_that_asks_the_gateways_with_a_key_of_a_secret() -> None:
    assert not any(key.startswith("Job/") for key in objects("h200-1x8"))
    values: dict[str, Any] = {"enabled": True, "keySecret": "load-key", "claim": "results"}
    rendered = objects("h200-1x8", {"loadTest": values})
    [name] = [key for key in rendered if key.startswith("Job/")]
    job = rendered[name]["spec"]
    assert job["backoffLimit"] == 0
    spec = job["template"]["spec"]
    [container] = spec["containers"]
    assert container["args"][0] == "find-capacity"
    assert "--key-env=R1_KEY" in container["args"]
    service = next(key for key in rendered if key.startswith("RayService/")).split("/")[1]
    assert any(word.startswith(f"--url=http://{service}-serve-svc.") for word in container["args"])
    [env] = container["env"]
    assert env["valueFrom"]["secretKeyRef"] == {"name": "load-key", "key": "key"}
    [results] = [volume for volume in spec["volumes"] if volume["name"] == "results"]
    assert results["persistentVolumeClaim"] == {"claimName": "results"}
    same = objects("h200-1x8", {"loadTest": values, "commonLabels": {"a": "b"}})
    assert name in same
    other = objects("h200-1x8", {"loadTest": values | {"args": ["run", "--rate=2"]}})
    assert name not in other
