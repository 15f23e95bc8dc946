"""The chart through a real Helm, without a cluster."""

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path("helm/r1-serve")
PROFILES = sorted(path.stem for path in (CHART / "profiles").glob("*.yaml"))
APIS = (
    "ray.io/v1/RayService",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)


@functools.cache
def tools() -> Path:
    """Where the Helms are."""
    said = subprocess.run(
        ["deploy/chart/tools.sh"], check=True, capture_output=True, text=True, timeout=300
    )
    return Path(said.stdout.strip())


def template(
    profile: str,
    values: Mapping[str, Any] | None = None,
    *,
    helm: str = "helm4",
    release: str = "r1",
    apis: Sequence[str] = APIS,
    chart: Path = CHART,
) -> subprocess.CompletedProcess[str]:
    """What Helm says of a profile with other values on top."""
    argv = [
        *(str(tools() / helm), "template", release, str(chart)),
        *("--namespace", "serving", "--kube-version", "1.36.0"),
        *("-f", str(CHART / "profiles" / f"{profile}.yaml"), "-f", "-"),
        *(word for api in apis for word in ("--api-versions", api)),
    ]
    text = json.dumps(values or {})
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


def objects(
    profile: str, values: Mapping[str, Any] | None = None, chart: Path = CHART
) -> dict[str, dict[str, Any]]:
    """The rendered objects by kind and name."""
    said = template(profile, values, chart=chart)
    assert said.returncode == 0, said.stderr
    found = [each for each in yaml.load_all(said.stdout, yaml.CSafeLoader) if each is not None]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def pods(rendered: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The RayService's pod templates by the name of their group."""
    [cluster] = [
        each["spec"]["rayClusterConfig"] for key, each in rendered.items() if "RayService/" in key
    ]
    found = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return found | {"head": cluster["headGroupSpec"]["template"]}
