"""Writes what of the Helm chart is generated: the schema of its values, the profiles, and what
the chart renders, for who uses no Helm.

`python -m deploy.chart.write` from the project's folder.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.cli.main import main
from orchestrator.spec import Spec
from orchestrator.spec.chart import ChartValues

Tree = Any  # a piece of a JSON schema
CHART = Path("helm/r1-serve")
# What each profile was planned with; the planner's own output is the profile.
PROFILES: Mapping[str, tuple[str, ...]] = {
    "h100-2x8": ("--gpus", "16xH100", "--fabric", "tcp"),
    "h200-1x8": ("--gpus", "8xH200"),
    "h200-wide-ep": (
        *("--gpus", "32xH200", "--workload", "chat,rate=15"),
        *("--slo", "ttft=2s,itl=50ms"),
    ),
    "b200": ("--gpus", "8xB200"),
    "gb200-nvl72": ("--gpus", "72xGB200", "--weights", "nvfp4"),
    "mi300x": ("--gpus", "8xMI300X"),
}
RENDERED = Path("deploy/rayservice")
# What is rendered for reference: its values, on top of a profile's.
REFERENCES: Mapping[str, Mapping[str, Any]] = {
    "h200-1x8": {"weights": {"models": {"DeepSeek-R1-0528": "pvc://r1/DeepSeek-R1-0528"}}},
    "h200-wide-ep": {"weights": {"models": {"DeepSeek-R1-0528": "pvc://r1/DeepSeek-R1-0528"}}},
}
SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema of values.yaml, closed at every level that is the chart's or the spec's."""
    chart = TypeAdapter(ChartValues).json_schema()
    spec = TypeAdapter(Spec).json_schema()
    definitions = {name: _camel(tree) for name, tree in chart.pop("$defs").items()}
    whole = _camel(chart)
    # The planner writes the models; what an operator sets of the spec beside them may stand alone.
    own = {f"Spec{name}": _renamed(tree) for name, tree in spec.pop("$defs").items()}
    tree = _renamed(spec)
    tree.pop("required", None)
    whole["properties"]["global"] = whole["properties"].pop("globals")
    whole["properties"]["spec"] = tree
    whole["required"] = ["spec", "workerGroups"]
    return {"$schema": SCHEMA, **_closed(whole), "$defs": _closed(definitions | own)}


def write_profile(name: str, path: Path) -> None:
    """The planner's values for a profile."""
    code = main(["plan", *PROFILES[name], "--format", "values", "-o", str(path)])
    assert code == 0


def rendered(name: str) -> str:
    """The objects of a profile in YAML, as `kubectl apply` takes them."""
    tools = subprocess.run(
        ["deploy/chart/tools.sh"], check=True, capture_output=True, text=True, timeout=300
    )
    ended = subprocess.run(
        [
            *(f"{tools.stdout.strip()}/helm4", "template", "r1", str(CHART), "--no-hooks"),
            *("--namespace", "r1", "--kube-version", "1.36.0"),
            *("--api-versions", "ray.io/v1/RayService"),
            *("-f", str(CHART / "profiles" / f"{name}.yaml"), "-f", "-"),
        ],
        input=json.dumps(REFERENCES[name]),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return f"# Rendered from the chart and profiles/{name}.yaml by `make chart`.\n{ended.stdout}"


def _camel(tree: dict[str, Any]) -> dict[str, Any]:
    """A dataclass's schema with its names as Kubernetes writes them."""
    properties = tree.get("properties")
    if not isinstance(properties, dict):
        return tree
    found = dict(tree)
    found["properties"] = {_camel_name(name): value for name, value in properties.items()}
    required = tree.get("required")
    if isinstance(required, list):
        found["required"] = [_camel_name(name) for name in required]
    return found


def _camel_name(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _renamed(tree: Tree) -> Tree:
    """References to the spec's own definitions, which have names of their own here."""
    match tree:
        case dict():
            return {
                key: value.replace("#/$defs/", "#/$defs/Spec") if key == "$ref" else _renamed(value)
                for key, value in tree.items()
            }
        case list():
            return [_renamed(each) for each in tree]
        case _:
            return tree


def _closed(tree: Tree) -> Tree:
    """Without titles, and with no key allowed that is not named."""
    match tree:
        case dict():
            found = {
                key: _closed(value)
                for key, value in tree.items()
                if key != "title" or not isinstance(value, str)
            }
            if "properties" in found and found.get("type") == "object":
                found["additionalProperties"] = False
            return found
        case list():
            return [_closed(each) for each in tree]
        case _:
            return tree


def write() -> None:
    """All of it."""
    text = json.dumps(schema(), indent=1, sort_keys=True) + "\n"
    (CHART / "values.schema.json").write_text(text, encoding="utf-8")
    for name in PROFILES:
        write_profile(name, CHART / "profiles" / f"{name}.yaml")
    for name in REFERENCES:
        (RENDERED / f"{name}.yaml").write_text(rendered(name), encoding="utf-8")


if __name__ == "__main__":
    write()
