"""Which pools have room for one gang more."""

from orchestrator.core import Role
from orchestrator.fleet import FreeNode, surges
from orchestrator.spec import GangSpec, PoolSpec

SMALL = PoolSpec(Role.DECODE, gang=GangSpec(tensor_parallel=4))
WIDE = PoolSpec(Role.PREFILL, gang=GangSpec(tensor_parallel=16, nodes=2))


def test_without_free_gpus_no_pool_surges() -> None:
    assert surges({"p": WIDE, "d": SMALL}, [FreeNode(0), FreeNode(3)]) == frozenset()


def test_a_gang_needs_as_many_nodes_with_room_as_it_spans() -> None:
    assert surges({"p": WIDE}, [FreeNode(8), FreeNode(4)]) == frozenset()
    assert surges({"p": WIDE}, [FreeNode(8), FreeNode(8)]) == {"p"}


def test_pools_do_not_count_on_the_same_gpus() -> None:
    assert surges({"p": WIDE, "d": SMALL}, [FreeNode(8), FreeNode(8)]) == {"p"}
    assert surges({"p": WIDE, "d": SMALL}, [FreeNode(8), FreeNode(8), FreeNode(4)]) == {"p", "d"}


def test_a_pool_that_is_bound_to_a_group_surges_there_only() -> None:
    bound = PoolSpec(Role.DECODE, gang=GangSpec(tensor_parallel=4), node_group="fast")
    assert surges({"d": bound}, [FreeNode(8)]) == frozenset()
    assert surges({"d": bound}, [FreeNode(8, frozenset({"fast"}))]) == {"d"}
