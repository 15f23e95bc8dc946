"""Reading specs: what is wrong is said with its path and its cure."""

from pathlib import Path

import pytest

from orchestrator.core import Role, SpecError
from orchestrator.spec import EngineKind, load_spec, local_spec, parse_spec

GOOD = """
model: {path: /models/r1, name: deepseek-reasoner}
engine: {args: [--enforce-eager]}
pools:
  - {role: prefill, replicas: 2, gang: {tensor_parallel: 8}}
  - {role: decode, gang: {tensor_parallel: 8, pipeline_parallel: 2, nodes: 2}}
"""


def test_a_spec_is_read_into_the_tree() -> None:
    spec = parse_spec(GOOD)
    prefill, decode = spec.pool(Role.PREFILL), spec.pool(Role.DECODE)
    assert prefill is not None
    assert prefill.replicas == 2
    assert decode is not None
    assert (decode.gang.gpus, decode.gang.gpus_per_node) == (16, 8)
    assert spec.pool(Role.UNIFIED) is None
    assert spec.engine.args == ("--enforce-eager",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not YAML"),
        ("just words", "no mapping"),
        ("pools: [{role: unified}]", "model"),
        ("model: {path: x, colour: red}\npools: [{role: unified}]", "model.colour: unknown key"),
        ("model: {path: x}\npools: [{role: boss}]", "pools.0.role"),
        ("model: {path: x}\npools: [{role: prefill}]", "cannot serve"),
        ("model: {path: x}\npools: []", "none cannot serve"),
        ("model: {path: x}\npools: [{role: unified}, {role: unified}]", "named twice"),
        ("model: {path: x}\npools: [{role: unified, replicas: 0}]", "replicas: 0 is not positive"),
        ("model: {path: x}\npools: [{role: unified}]\ngateway: {port: 99999}", "no TCP port"),
        ("model: {path: x}\npools: [{role: unified, replicas: many}]", "pools.0.replicas"),
    ],
)
def test_what_is_wrong_is_named_on_one_line_with_a_cure(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "my.yaml")
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
    assert sum(pool.replicas * pool.gang.nodes for pool in spec.pools) == nodes
    assert max(pool.gang.nodes for pool in spec.pools) == 2


def test_the_examples_in_deploy_are_valid() -> None:
    examples = sorted(Path("deploy/local").glob("*.yaml"))
    assert examples
    for path in examples:
        load_spec(path)
