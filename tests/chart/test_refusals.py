"""Values that could never run are refused as they are rendered, with the number or the cure."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from deploy.chart.write import schema
from tests.chart.rendering import APIS, CHART, template


def changed(profile: str, change: dict[str, Any]) -> dict[str, Any]:
    """The profile's models with another first pool."""
    values = yaml.safe_load((CHART / "profiles" / f"{profile}.yaml").read_text())
    models = values["spec"]["models"]
    models[0]["pools"][0] |= change
    return {"spec": {"models": models}}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "a name": ({"fullnameOverride": "a" * 48}, "has 48 characters, KubeRay allows a RayService 47"),
    "no label": ({"fullnameOverride": "R1"}, "the name R1 is no DNS label"),
    "gpus": (
        changed("h100-2x8", {"gang": {"tensor_parallel": 8, "pipeline_parallel": 3, "nodes": 2}}),
        "tensor 8 x pipeline 3 x data 1 = 24 GPUs, workerGroups.unified has 2 hosts x 8 = 16",
    ),
    "hosts": (
        changed("h100-2x8", {"gang": {"tensor_parallel": 16, "nodes": 1}}),
        "spans 1 nodes, workerGroups.unified has numOfHosts 2",
    ),
    "group": (
        changed("h100-2x8", {"node_group": "none"}),
        "node_group none is none of workerGroups: unified",
    ),
    "replicas": (
        changed("h100-2x8", {"replicas": 3}),
        "has 3 replicas, workerGroups.unified only 1",
    ),
    "one host's volume": (
        {
            "weights": {
                "models": {"DeepSeek-R1-0528": "pvc://r1/x"},
                "claims": {"r1": {"accessMode": "ReadWriteOnce"}},
            }
        },
        "weights.claims.r1 is ReadWriteOnce, and 2 hosts mount it",
    ),
    "shared memory": (
        {"gpuHosts": {"shm": "300Gi"}},
        "gpuHosts.shm 300Gi is more than half of gpuHosts.memory 512Gi",
    ),
    "a mount": ({"gpuHosts": {"extraMounts": {"x": "/x"}}}, "add gpuHosts.extraVolumes.x"),
    "a domain": ({"dra": {"computeDomain": True}}, "dra.computeDomain needs dra.enabled"),
    "a queue": ({"scheduling": {"gang": "kueue"}}, "scheduling.gang kueue needs scheduling.queue"),
    "pod sets": (
        {
            "scheduling": {"gang": "kueue", "queue": "gpus", "leafLabel": "leaf"},
            "workerGroups": {"unified": {"replicas": 17}},
        },
        "are 19 pod sets, Kueue takes 18: install 2 releases",
    ),
    "a gateway": (
        {"ray": {"upgrade": "NewClusterWithIncrementalUpgrade"}},
        "needs ray.gatewayClassName",
    ),
    "a route": ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
    "a cache": (
        {"weights": {"predownload": True}},
        "weights.predownload needs weights.cacheHostPath",
    ),
    "nothing to fetch": (
        {"weights": {"predownload": True, "cacheHostPath": "/data"}},
        "no model's path is hf://OWNER/NAME",
    ),
    "a key of the chart": ({"gpuHost": {}}, "gpuHost"),
    "a key of the spec": ({"spec": {"gateway": {"prot": 1}}}, "prot"),
    "a kind": ({"ray": {"upgrade": "Blue"}}, "upgrade"),
    "a quantity": ({"head": {"memory": "16 gigs"}}, "memory"),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_it_is_refused_with_what_is_wrong(name: str, helm: str) -> None:
    values, said = REFUSALS[name]
    ended = template("h100-2x8", values, helm=helm)
    assert ended.returncode != 0
    assert said in ended.stderr


def test_a_cluster_without_kuberay_is_told_how_to_get_it() -> None:
    ended = template("b200", apis=())
    assert ended.returncode != 0
    assert "helm install kuberay-operator" in ended.stderr


def test_a_cluster_without_prometheus_is_told_so() -> None:
    ended = template("b200", {"monitoring": {"podMonitor": True}}, apis=APIS[:1])
    assert ended.returncode != 0
    assert "this cluster has no PodMonitor" in ended.stderr


def test_rules_without_who_reads_them_are_refused() -> None:
    ended = template("b200", {"monitoring": {"rules": {"enabled": True}}}, apis=APIS[:1])
    assert "this cluster has no PrometheusRule" in ended.stderr


def test_a_chart_without_a_plan_says_where_one_comes_from() -> None:
    ended = template("b200", {"spec": {"models": []}})
    assert "r1-serve plan --format values" in ended.stderr


def test_the_schema_is_the_dataclasses() -> None:
    written = json.loads((CHART / "values.schema.json").read_text())
    assert written == json.loads(json.dumps(schema()))


def keys(tree: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every key of a tree of maps."""
    if not isinstance(tree, dict):
        return []
    return [
        found for key, value in tree.items() for found in [(*path, key), *keys(value, (*path, key))]
    ]


def test_every_default_is_in_the_schema() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    known = schema()
    definitions: Any = known["$defs"]
    for path in keys(defaults):
        tree: Any = known
        for key in path:
            tree = tree.get("properties", {}).get(key) or tree["additionalProperties"]
            if "$ref" in tree:
                tree = definitions[tree["$ref"].rpartition("/")[2]]
        assert tree, path


RANDOM_VALUES = 500
PLANNED = ("plan", "workerGroups")  # the planner writes them


def wrong_kind(value: object) -> object:
    """Something that a value of this kind can never be."""
    match value:
        case bool():
            return "perhaps"
        case int() | float():
            return "many"
        case str():
            return 3
        case list():
            return {"a": "b"}
        case _:
            return "text"


def invalid(seed: int) -> tuple[dict[str, Any], str]:
    """Values of which one is wrong, anywhere that is the chart's or the spec's own, and what must
    be named.
    """
    chance = random.Random(seed)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    own = [path for path in keys(defaults) if path[0] not in PLANNED and "labels" not in path[:-1]]
    path = chance.choice(own)
    values: Any
    match chance.choice(("misspelt", "kind", "refusal")):
        case "misspelt":
            at = chance.randrange(len(path[-1]) + 1)
            named = path[-1][:at] + chance.choice("XYZ") + path[-1][at:]
            values = {named: 1}
        case "kind":
            named = path[-1]
            there = defaults
            for key in path:
                there = there[key]
            values = {named: wrong_kind(there)}
        case _:
            values, named = REFUSALS[chance.choice(sorted(REFUSALS))]
            return values, named
    for key in reversed(path[:-1]):
        values = {key: values}
    return values, named


@pytest.mark.timeout(600)
def test_random_invalid_values_are_refused_and_what_is_wrong_is_named() -> None:
    def check(seed: int) -> None:
        values, named = invalid(seed)
        ended = template("h100-2x8", values)
        assert ended.returncode != 0, values
        assert named in ended.stderr, (values, ended.stderr)

    with ThreadPoolExecutor(2) as pool:
        refused = sum(1 for _ in pool.map(check, range(RANDOM_VALUES)))
    print(f"{refused} random invalid values, all refused with what is wrong")
