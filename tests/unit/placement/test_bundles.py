"""What gangs ask of nodes, and when the nodes cannot hold them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.placement import Bundles, Impossible, bundles, place
from orchestrator.spec import GangSpec, PoolSpec


def pool(tp: int = 1, pp: int = 1, nodes: int = 1, replicas: int = 1) -> PoolSpec:
    gang = GangSpec(tensor_parallel=tp, pipeline_parallel=pp, nodes=nodes)
    return PoolSpec(Role.UNIFIED, replicas, gang)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (pool(tp=8), Bundles(Role.UNIFIED, 1, 8)),
        (pool(tp=8, pp=2, nodes=2), Bundles(Role.UNIFIED, 2, 8)),
        (pool(tp=4, pp=2), Bundles(Role.UNIFIED, 1, 8)),
    ],
)
def test_a_gang_asks_for_a_bundle_per_node(asked: PoolSpec, expected: Bundles) -> None:
    assert bundles(asked) == expected


def test_tensor_parallelism_across_nodes_is_refused_with_the_reason() -> None:
    refused = bundles(pool(tp=16, nodes=2))
    assert isinstance(refused, Impossible)
    assert "pipeline stages" in refused.cause
    assert "inside one" in refused.cure


@pytest.mark.parametrize(
    ("tp", "pp", "nodes", "fits"), [(16, 1, 2, True), (3, 1, 2, False), (4, 2, 2, False)]
)
def test_only_inside_an_nvlink_domain_may_tensor_parallelism_go_across_nodes(
    tp: int, pp: int, nodes: int, fits: bool
) -> None:
    gang = GangSpec(tp, pp, nodes=nodes, tensor_across_nodes=True)
    asked = bundles(PoolSpec(Role.DECODE, 1, gang))
    assert (
        asked == Bundles(Role.DECODE, nodes, tp // nodes) if fits else isinstance(asked, Impossible)
    )


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_gangs_that_hand_over_kv_have_no_pipeline_stages(role: Role) -> None:
    refused = bundles(PoolSpec(role, 1, GangSpec(pipeline_parallel=2, nodes=2)))
    assert isinstance(refused, Impossible)
    assert "transfers no KV" in refused.cause


def test_more_gpus_than_the_nodes_have_is_refused_with_both_numbers() -> None:
    refused = place([pool(tp=8, replicas=3)], [8, 8])
    assert isinstance(refused, Impossible)
    assert "asks for 24 GPUs" in refused.cause
    assert "2 x 8 GPUs" in refused.cause


def test_a_wide_gang_finds_room_beside_narrow_ones() -> None:
    assert not isinstance(place([pool(tp=2, replicas=4), pool(tp=8)], [8, 8]), Impossible)


def test_a_gang_that_spans_nodes_needs_that_many_nodes_not_that_many_gpus() -> None:
    assert isinstance(place([pool(pp=2, nodes=2)], [8]), Impossible)


@given(
    st.lists(
        st.builds(
            pool,
            tp=st.sampled_from([1, 2, 4, 8]),
            pp=st.just(2),
            nodes=st.sampled_from([1, 2]),
            replicas=st.integers(1, 3),
        ),
        max_size=4,
    ),
    st.lists(st.integers(0, 16), max_size=6),
)
def test_what_is_placed_never_asks_for_more_than_there_is(
    pools: list[PoolSpec], node_gpus: list[int]
) -> None:
    placed = place(pools, node_gpus)
    if isinstance(placed, Impossible):
        assert placed.cause
        assert placed.cure
    else:
        gangs = [gang for row in placed for gang in row]
        assert sum(gang.nodes * gang.gpus for gang in gangs) <= sum(node_gpus)
        assert max((gang.nodes for gang in gangs), default=0) <= len(node_gpus)
