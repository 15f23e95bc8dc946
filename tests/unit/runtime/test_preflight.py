"""Nodes on which a gang would fail after minutes are found at once."""

from dataclasses import replace

import pytest

from orchestrator.core import EngineStartError, Role
from orchestrator.runtime.launch import NodeFacts
from orchestrator.runtime.preflight import check_nodes
from orchestrator.spec import EngineKind, EngineSpec, ModelSpec, PoolSpec

NODE = NodeFacts("", "10.0.0.1", "eth0", (1, 2, 3, 4), "0.32.0", 64 << 30)
MODEL = ModelSpec("/models/r1", (PoolSpec(Role.UNIFIED),))


def test_nodes_of_the_version_asked_for_pass() -> None:
    check_nodes(MODEL, 8, [NODE, NODE])


@pytest.mark.parametrize(("version", "said"), [("0.31.1", "has vLLM 0.31.1"), (None, "has no vLL")])
def test_a_node_with_another_engine_is_named(version: str | None, said: str) -> None:
    with pytest.raises(EngineStartError, match=said) as caught:
        check_nodes(MODEL, 8, [NODE, replace(NODE, engine_version=version)])
    assert "engine.version" in caught.value.cure


def test_the_64_mib_of_a_container_are_too_few_for_several_ranks_and_enough_for_one() -> None:
    small = replace(NODE, shm_free_bytes=64 << 20)
    check_nodes(MODEL, 1, [small])
    with pytest.raises(EngineStartError, match="64 MiB free in /dev/shm, its 8 ranks need 496"):
        check_nodes(MODEL, 8, [small])


def test_fake_engines_need_nothing() -> None:
    fake = replace(MODEL, engine=EngineSpec(EngineKind.FAKE))
    check_nodes(fake, 8, [replace(NODE, engine_version=None, shm_free_bytes=0)])
