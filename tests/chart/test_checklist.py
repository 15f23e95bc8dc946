"""The checklist of docs/chart.md: every row that says so is shown by tests that exist, and the rows
that no other file here is about.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart.write import schema
from tests.chart.rendering import CHART, PROFILES, objects, pods

ROOT = Path(__file__).parents[2]
TIERS = {"C": "tests/k8s/test_operator.py", "D": "tests/k8s/test_scale.py"}
TIERS |= {"E": "tests/k8s/test_real.py"}
TESTS = "".join(
    path.read_text()
    for room in ("chart", "unit/gateway", "unit/routing")
    for path in sorted((ROOT / "tests" / room).glob("test_*.py"))
)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/chart.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]


def numbers(cell: str) -> range:
    first, _, last = cell.partition("-")
    return range(int(first), int(last or first) + 1)


def test_every_item_has_a_row() -> None:
    assert [number for row in ROWS for number in numbers(row[0])] == list(range(1, 61))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_met_is_shown_and_what_is_named_exists(row: list[str]) -> None:
    _, item, state, shown = row
    assert shown or not re.match("(met|partly met)", state), f"{item}: nothing shows it"
    for tier, name in re.findall(r"(?:\b([CDE]) )?`(\w+)`", shown):
        if name.startswith("test_"):
            text = (ROOT / TIERS[tier]).read_text() if tier else TESTS
            assert f"def {name}(" in text, name
    for target in re.findall(r"`make ([\w-]+)`", shown):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


OF_THE_PLANNER = ("spec", "plan", "workerGroups")


def lists(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each list below a part of the schema, by its path, with what the schema says of its items."""
    if "$ref" in tree:
        tree = schema()["$defs"][tree["$ref"].rpartition("/")[2]]
    if "items" in tree:
        yield ".".join(path), tree["items"]
    below = dict(tree.get("properties", {}))
    if isinstance(every := tree.get("additionalProperties"), dict):
        below["*"] = every
    for key, value in below.items():
        yield from lists(value, (*path, key))


def test_nothing_of_ours_that_an_operator_overrides_is_a_list_of_things() -> None:
    """Helm merges maps and replaces lists. What is a list holds words, or is Kubernetes' own."""
    found = {
        path: items
        for key, part in schema()["properties"].items()
        if key not in OF_THE_PLANNER
        for path, items in lists(part, (key,))
    }
    assert "gpuHosts.tolerations" in found
    for path, items in found.items():
        assert items in ({"type": "string"}, {"type": "object", "additionalProperties": True}), path


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A copy of the chart that renders its NOTES as an object: `helm template` leaves them out."""
    copied = tmp_path / "r1-serve"
    shutil.copytree(CHART, copied)
    shutil.move(copied / "templates/NOTES.txt", copied / "NOTES.tpl")
    (copied / "templates/notes.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data: {text: {{ tpl (.Files.Get "NOTES.tpl") . | toJson }}}\n'
    )
    return copied


def notes(chart: Path, values: dict[str, Any]) -> str:
    told: str = objects("h200-wide-ep", values, chart)["ConfigMap/notes"]["data"]["text"]
    return told


def test_the_notes_name_endpoint_capacity_start_and_each_risk_of_the_values(noted: Path) -> None:
    planned = yaml.safe_load((CHART / "profiles/h200-wide-ep.yaml").read_text())["plan"]
    told = notes(noted, {})
    assert "http://r1-r1-serve-serve-svc.serving:8000" in told
    assert f"{planned['predicted']['requests_per_s']:.1f} requests/s" in told
    assert re.search(r"The weights load within \d+ s", told)
    cured: dict[str, dict[str, Any]] = {
        "The API is OPEN": {"keys": {"secret": "keys"}},
        "set scheduling.gang": {"scheduling": {"gang": "volcano"}},
        "set scheduling.leafLabel": {"scheduling": {"leafLabel": "leaf"}},
        "If the Ray head restarts": {"ray": {"redis": {"address": "redis:6379"}}},
        "networkPolicies.clients is empty": {"networkPolicies": {"clients": [{"podSelector": {}}]}},
    }
    for risk, cure in cured.items():
        assert risk in told
        assert risk not in notes(noted, cure)
    caused: dict[str, dict[str, Any]] = {
        "Ray runs what anybody in its network sends it": {"ray": {"auth": False}},
        "networkPolicies.enabled is false": {"networkPolicies": {"enabled": False}},
        "Pods use their nodes' ports": {"network": {"hostNetwork": True}},
        "ray.upgrade is NewCluster": {"ray": {"upgrade": "NewCluster"}},
    }
    for risk, cause in caused.items():
        assert risk not in told
        assert risk in notes(noted, cause)


def test_what_an_ingress_leads_in_is_neither_held_back_nor_cut_while_it_streams() -> None:
    rendered = objects("h200-wide-ep", {"ingress": {"enabled": True, "host": "r1.example"}})
    [ingress] = [each for each in rendered.values() if each["kind"] == "Ingress"]
    said = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    assert said[f"{prefix}buffering"] == "off"
    longest = yaml.safe_load((CHART / "values.yaml").read_text())["spec"]["gateway"]["stream_s_max"]
    assert {said[f"{prefix}read-timeout"], said[f"{prefix}send-timeout"]} == {str(longest)}


def test_keys_come_from_a_secret_that_is_renewed_in_place_and_are_in_no_configuration() -> None:
    rendered = objects("h200-wide-ep", {"keys": {"secret": "tenants"}})
    gateways = pods(rendered)["gateways"]["spec"]
    [volume] = [each for each in gateways["volumes"] if each["name"] == "keys"]
    assert volume["secret"] == {"secretName": "tenants"}
    [mount] = [m for m in gateways["containers"][0]["volumeMounts"] if m["name"] == "keys"]
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "what is mounted so stays what it was when the Secret changes"
    assert f"keys_path: {mount['mountPath']}" in json.dumps(list(rendered.values()))
    assert not [key for key in rendered if key.startswith("Secret/")], "the operator's own"


@pytest.mark.parametrize("profile", PROFILES)
def test_no_autoscaler_of_kubernetes_is_over_the_gangs(profile: str) -> None:
    """A pod more or less would be a part of a gang."""
    kinds = {key.partition("/")[0] for key in objects(profile)}
    assert not kinds & {"HorizontalPodAutoscaler", "ScaledObject", "VerticalPodAutoscaler"}


def test_weights_are_fetched_beforehand_into_the_folder_that_gangs_read() -> None:
    source, folder = "hf://deepseek-ai/DeepSeek-R1-0528", "/data/weights"
    weights = {
        "models": {"DeepSeek-R1-0528": source},
        "predownload": True,
        "cacheHostPath": folder,
        "hubTokenSecret": "hub",
    }
    rendered = objects("h200-1x8", {"weights": weights})
    pod = rendered["DaemonSet/r1-r1-serve-weights"]["spec"]["template"]["spec"]
    [fetch] = pod["initContainers"]
    assert fetch["command"][:3] == ["r1-serve", "fetch", source]
    assert fetch["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "hub"
    for reads in (pod, pods(rendered)["unified"]["spec"]):
        [volume] = [
            each for each in reads["volumes"] if each.get("hostPath", {}).get("path") == folder
        ]
        container = reads.get("initContainers", reads["containers"])[0]
        [mount] = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
        assert mount["mountPath"] == fetch["command"][4] == "/var/cache/r1-serve"
