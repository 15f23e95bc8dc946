"""Which nodes gangs get: room, nearness, spreading, and nothing left to chance."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import Role
from orchestrator.placement import Impossible, Node, PlacedGang, place
from orchestrator.spec import GangSpec, PoolSpec


def nodes(*gpus: int) -> list[Node]:
    return [Node(f"n{index}", count) for index, count in enumerate(gpus)]


def pool(
    tp: int = 1, pp: int = 1, dp: int = 1, nodes: int = 1, replicas: int = 1, across: bool = False
) -> PoolSpec:
    gang = GangSpec(tp, pp, dp, nodes=nodes, tensor_across_nodes=across)
    return PoolSpec(Role.UNIFIED, replicas, gang)


def placed(pools: list[PoolSpec], on: list[Node]) -> tuple[PlacedGang, ...]:
    gangs = place(pools, on)
    assert not isinstance(gangs, Impossible), gangs
    return gangs


def racks(*leaves: str) -> list[Node]:
    return [Node(f"n{index}", 8, leaf) for index, leaf in enumerate(leaves)]


def test_more_gpus_than_the_nodes_have_is_refused_with_both_numbers() -> None:
    refused = place([pool(tp=8, replicas=3)], nodes(8, 8))
    assert isinstance(refused, Impossible)
    assert "asks for 24 GPUs" in refused.cause
    assert "2 x 8 GPUs" in refused.cause


def test_a_wide_gang_finds_room_beside_narrow_ones() -> None:
    placed([pool(tp=2, replicas=4), pool(tp=8)], nodes(8, 8))


def test_a_gang_that_spans_nodes_needs_that_many_nodes_not_that_many_gpus() -> None:
    assert isinstance(place([pool(pp=2, nodes=2)], nodes(8)), Impossible)


def test_a_gang_stays_on_one_leaf_if_one_has_room() -> None:
    [gang] = placed([pool(tp=8, dp=2, nodes=2)], racks("a", "b", "c", "b"))
    assert gang.nodes == ("n1", "n3")


def test_a_gang_larger_than_any_leaf_goes_over_as_few_as_it_can() -> None:
    [gang] = placed([pool(tp=8, dp=4, nodes=4)], racks("a", "b", "b", "b", "c"))
    assert set(gang.nodes) == {"n1", "n2", "n3", "n0"}


def test_gangs_of_a_pool_spread_over_failure_domains() -> None:
    on = [Node(f"n{i}", 8, failure_domain=domain) for i, domain in enumerate("aaabbb")]
    gangs = placed([pool(tp=8, replicas=2), pool(tp=8, replicas=2)], on)
    for index in (0, 1):
        domains = {on[int(g.nodes[0][1:])].failure_domain for g in gangs if g.pool == index}
        assert domains == {"a", "b"}


def test_spreading_gives_way_where_it_would_leave_no_room() -> None:
    on = [Node("n0", 4, failure_domain="a"), Node("n1", 4, failure_domain="b"), Node("n2", 8)]
    gangs = placed([pool(tp=2, replicas=4), pool(tp=4, replicas=2)], on)
    assert sum(gang.gpus for gang in gangs) == 16


def test_tensor_parallelism_across_nodes_stays_in_one_nvlink_domain() -> None:
    on = [Node(f"t{index}", 4, nvlink_domain=domain) for index, domain in enumerate("xyzy")]
    [gang] = placed([pool(tp=8, nodes=2, across=True)], on)
    assert gang.nodes == ("t1", "t3")
    refused = place([pool(tp=8, nodes=2, across=True)], on[:3])
    assert isinstance(refused, Impossible)
    assert "of one NVLink domain" in refused.cause


def test_no_pools_need_no_nodes() -> None:
    assert place([], []) == ()


pools_of_two_nodes = st.lists(
    st.builds(
        pool,
        tp=st.sampled_from([1, 2, 4, 8]),
        pp=st.sampled_from([1, 2]),
        dp=st.just(2),
        nodes=st.sampled_from([1, 2]),
        replicas=st.integers(1, 3),
    ),
    max_size=4,
)
any_nodes = st.lists(
    st.tuples(st.integers(0, 16), st.sampled_from("ab"), st.sampled_from(["", "x", "y"])),
    max_size=7,
).map(
    lambda rows: [Node(f"n{i}", gpus, leaf, "", rack) for i, (gpus, leaf, rack) in enumerate(rows)]
)


@given(pools_of_two_nodes, any_nodes, st.randoms(use_true_random=False))
def test_what_is_placed_fits_and_does_not_depend_on_the_order_of_the_nodes(
    pools: list[PoolSpec], on: list[Node], chance: random.Random
) -> None:
    gangs = place(pools, on)
    shuffled = list(on)
    chance.shuffle(shuffled)
    assert place(pools, shuffled) == gangs or isinstance(gangs, Impossible)
    if isinstance(gangs, Impossible):
        assert gangs.cause
        assert gangs.cure
        return
    assert len(gangs) == sum(pool.replicas for pool in pools)
    used = dict.fromkeys((node.name for node in on), 0)
    for gang in gangs:
        assert len(set(gang.nodes)) == len(gang.nodes) == pools[gang.pool].gang.nodes
        for name in gang.nodes:
            used[name] += gang.gpus
    assert all(used[node.name] <= node.gpus for node in on)


@pytest.mark.parametrize("free", [7, 8])
def test_room_is_exact(free: int) -> None:
    assert isinstance(place([pool(tp=8)], nodes(free)), Impossible) == (free < 8)
