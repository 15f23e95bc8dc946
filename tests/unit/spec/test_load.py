"""Reading specs: what is wrong is said with its path and its cure."""

import re
from pathlib import Path

import pytest

from orchestrator.core import Role, SpecError
from orchestrator.spec import EngineKind, load_spec, local_spec, parse_spec

GOOD = """
models:
  - path: /models/r1
    engine: {args: [--enforce-eager]}
    pools:
      - {role: prefill, replicas: 2, gang: {tensor_parallel: 8}}
      - {role: decode, gang: {tensor_parallel: 8, pipeline_parallel: 2, nodes: 2}}
"""


def test_a_spec_is_read_into_the_tree() -> None:
    spec = parse_spec(GOOD)
    [model] = spec.models
    prefill, decode = model.pool(Role.PREFILL), model.pool(Role.DECODE)
    assert prefill is not None
    assert prefill.replicas == 2
    assert decode is not None
    assert (decode.gang.gpus, decode.gang.gpus_per_node) == (16, 8)
    assert model.pool(Role.UNIFIED) is None
    assert model.engine.args == ("--enforce-eager",)


def one(fields: str) -> str:
    """An item of a spec's models."""
    return f"\n  - {{path: x, {fields}}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not YAML"),
        ("just words", "no mapping"),
        ("gateway: {}", "models"),
        ("models: []", "there is none"),
        (one("colour: red, pools: [{role: unified}]"), "models.0.colour: unknown key"),
        (one("pools: [{role: boss}]"), "models.0.pools.0.role"),
        (one("pools: [{role: prefill}]"), "cannot serve"),
        (one("pools: []"), "none cannot serve"),
        (one("pools: [{role: unified}, {role: unified}]"), "named twice"),
        (one("pools: [{role: unified, replicas: 0}]"), "replicas: 0 is not positive"),
        (one("pools: [{role: unified, replicas: many}]"), "models.0.pools.0.replicas"),
        (one("name: GPT, pools: [{role: unified}]"), "GPT is not in the catalogue"),
        (one("pools: [{role: unified}]") * 2, "DeepSeek-R1-0528 is given 2 times"),
        (
            one("aliases: [x], pools: [{role: unified}]")
            + one("name: DeepSeek-R1, aliases: [x], pools: [{role: unified}]"),
            "x is given 2 times",
        ),
        (one("pools: [{role: unified}]") + "\ngateway: {port: 99999}", "no TCP port"),
        (one("pools: [{role: unified}]") + "\napi: {profile: v9}", "api.profile"),
        (
            one("pools: [{role: prefill}, {role: decode}]") + "\nhandoff: {kv: pull_bound}",
            "vLLM has no connector for pull_bound",
        ),
    ],
)
def test_what_is_wrong_is_named_on_one_line_with_a_cure(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(f"models:{text}" if text.startswith("\n") else text, "my.yaml")
    assert said in caught.value.cause
    assert "my.yaml" in caught.value.cause
    assert "\n" not in str(caught.value)
    assert caught.value.cure


def test_an_unreadable_file_is_a_spec_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(SpecError, match="cannot read the spec"):
            load_spec(path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot read the spec"):
        load_spec(binary)


@pytest.mark.parametrize("nodes", range(3, 40))
def test_a_local_fleet_uses_all_its_nodes_and_has_a_gang_that_spans_two(nodes: int) -> None:
    spec = local_spec(EngineKind.FAKE, nodes, "tokenizer")
    assert sum(pool.replicas * pool.gang.nodes for pool in spec.models[0].pools) == nodes
    assert max(pool.gang.nodes for pool in spec.models[0].pools) == 2


def test_the_examples_in_deploy_are_valid() -> None:
    examples = sorted(Path("deploy/local").glob("*.yaml"))
    assert examples
    for path in examples:
        load_spec(path)


@pytest.mark.parametrize(
    ("admission", "said"),
    [
        ("{wait_s: 0}", "admission.wait_s: 0.0 is not positive"),
        ("{tenant_requests_max: 0}", "admission.tenant_requests_max: 0 is not positive"),
        ("{rank_requests_max: -1}", "admission.rank_requests_max: -1 is not positive"),
        ("{classes: [{name: a}, {name: a}]}", "admission.classes: a is given 2 times"),
        ("{classes: [{name: ''}]}", "no name is given 1 times"),
        ("{classes: [{name: a, wait_s: -1}]}", "admission.classes.0.wait_s: -1.0 is not positive"),
        ("{classes: [{name: a, colour: red}]}", "admission.classes.0.colour: unknown key"),
    ],
)
def test_limits_that_contradict_are_said_with_their_key(admission: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec(f"{GOOD}\nadmission: {admission}")
    assert said in raised.value.cause
    assert raised.value.cure


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("telemetry: {port: 0}", "telemetry.port: 0 is no TCP port"),
        ("telemetry: {gpu_hour_price: -1}", "telemetry.gpu_hour_price: -1 is below 0"),
        ("telemetry: {gpus: H200}", "telemetry.gpus: unknown key"),
    ],
)
def test_what_telemetry_cannot_be_told_is_named(text: str, said: str) -> None:
    models = "models: [{path: p, pools: [{role: unified}]}]"
    with pytest.raises(SpecError, match=re.escape(said)):
        parse_spec(f"{models}\n{text}\n")
