"""The KubeRay operator, and Kueue, on a test cluster: their own manifests, and images of what
programs.sh built.
"""

from pathlib import Path
from typing import Any

import yaml

from deploy.cluster.cluster import Cluster
from deploy.cluster.images import write_image, write_layer

Thing = dict[str, Any]
USER = 1000  # an image of one file names no user
KUBERAY, KUEUE = "r1-serve.test/kuberay-operator:1", "r1-serve.test/kueue:1"
START_S = 400


def program_image(tools: Path, program: str, name: str, inside: str, folder: Path) -> Path:
    """Writes an image of one program."""
    layer = folder / f"{program}-layer.tar"
    write_layer(layer, {inside: (tools / program).resolve()})
    image = folder / f"{program}.tar"
    write_image(image, name, [layer], command=[inside])
    return image


def base_images(tools: Path, folder: Path) -> list[Path]:
    """What every cluster needs: what holds a pod, and the operator."""
    return [
        program_image(tools, "pause", "r1-serve.test/pause:1", "/pause", folder),
        program_image(tools, "kuberay-operator", KUBERAY, "/manager", folder),
    ]


def install_kuberay(cluster: Cluster) -> None:
    """Until it runs."""
    things = _manifests(cluster, "kuberay-config/default")
    deployment = _deployment(things, KUBERAY)
    # As the operator's own chart names it, whom our NetworkPolicies let in.
    name = {"app.kubernetes.io/name": "kuberay-operator"}
    deployment["spec"]["template"]["metadata"]["labels"].update(name)
    deployment["spec"]["selector"]["matchLabels"].update(name)
    _install(cluster, things, "default", "kuberay-operator")


def install_kueue(cluster: Cluster) -> None:
    """For RayServices alone; until it runs. Its API of what waits is left out."""
    things = [
        each
        for each in _manifests(cluster, "kueue-config/default")
        if each["kind"] != "APIService" and "visibility" not in each["metadata"]["name"]
    ]
    [container] = _deployment(things, KUEUE)["spec"]["template"]["spec"]["containers"]
    container["args"].append("--feature-gates=VisibilityOnDemand=false")
    for each in things:
        if each["kind"].endswith("WebhookConfiguration"):
            each["webhooks"] = [hook for hook in each["webhooks"] if _of_ray(hook)]
        if each["kind"] == "ConfigMap":
            [(name, text)] = each["data"].items()
            config = yaml.safe_load(text)
            config["integrations"]["frameworks"] = ["ray.io/rayservice", "ray.io/raycluster"]
            config["leaderElection"]["leaderElect"] = False
            each["data"] = {name: yaml.safe_dump(config)}
    _install(cluster, things, "kueue-system", "kueue-controller-manager")


def _of_ray(hook: Thing) -> bool:
    groups = {group for rule in hook["rules"] for group in rule["apiGroups"]}
    return groups <= {"ray.io", "kueue.x-k8s.io"}


def _manifests(cluster: Cluster, folder: str) -> list[Thing]:
    text = cluster.kubectl("kustomize", str(cluster.tools / folder))
    return list(yaml.load_all(text, yaml.CSafeLoader))


def _deployment(things: list[Thing], image: str) -> Thing:
    """The one of the manifests, made to run our image."""
    [deployment] = [each for each in things if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    pod["securityContext"]["runAsUser"] = USER
    [container] = pod["containers"]
    container["image"], container["imagePullPolicy"] = image, "Never"
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
    return deployment


def _install(cluster: Cluster, things: list[Thing], namespace: str, deployment: str) -> None:
    text = yaml.dump_all(things, Dumper=yaml.CSafeDumper)
    cluster.kubectl("apply", "--server-side", "-f", "-", text=text)
    definitions = [f"crd/{e['metadata']['name']}" for e in things if e["kind"].startswith("Custom")]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *definitions)
    cluster.kubectl(
        *("rollout", "status", f"deployment/{deployment}", "-n", namespace),
        f"--timeout={START_S}s",
        timeout_s=START_S + 30,
    )
