"""The KubeRay operator on a test cluster: its own manifests, and an image of the program that
programs.sh built.
"""

from pathlib import Path
from typing import Any

import yaml

from deploy.cluster.cluster import Cluster
from deploy.cluster.images import write_image, write_layer


def base_images(tools: Path, folder: Path) -> list[Path]:
    """Writes the images that every cluster needs: what holds a pod, and the operator."""
    found = []
    for name, image, inside in (
        ("pause", "r1-serve.test/pause:1", "/pause"),
        ("kuberay-operator", _image(tools), "/manager"),
    ):
        layer = folder / f"{name}-layer.tar"
        write_layer(layer, {inside: (tools / name).resolve()})
        write_image(folder / f"{name}.tar", image, [layer], command=[inside])
        found.append(folder / f"{name}.tar")
    return found


def install_operator(cluster: Cluster) -> None:
    """Until it runs."""
    text = cluster.kubectl("kustomize", str(cluster.tools / "kuberay-config/default"))
    things = list(yaml.load_all(text, yaml.CSafeLoader))
    [deployment] = [each for each in things if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    pod["securityContext"]["runAsUser"] = 1000  # an image of one file names no user
    # As the operator's own chart names it, whom the chart's NetworkPolicies let in.
    deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = (
        "kuberay-operator"
    )
    deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = "kuberay-operator"
    pod["containers"][0]["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    cluster.kubectl(
        "apply", "--server-side", "-f", "-", text=yaml.dump_all(things, yaml.CSafeDumper)
    )
    cluster.kubectl(
        *("rollout", "status", "deployment/kuberay-operator", "--timeout", "120s"), timeout_s=150
    )


def _image(tools: Path) -> str:
    settings: dict[str, Any] = yaml.safe_load(
        (tools / "kuberay-config/default/kustomization.yaml").read_text()
    )
    [image] = settings["images"]
    return f"{image['newName']}:{image['newTag']}"
