"""What gangs ask of nodes."""

import pytest

from orchestrator.core import Role
from orchestrator.placement import Bundles, Impossible, bundles
from orchestrator.spec import GangSpec, PoolSpec


def pool(tp: int = 1, pp: int = 1, dp: int = 1, nodes: int = 1) -> PoolSpec:
    return PoolSpec(Role.UNIFIED, 1, GangSpec(tp, pp, dp, nodes=nodes))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (pool(tp=8), Bundles(Role.UNIFIED, 1, 8)),
        (pool(tp=8, pp=2, nodes=2), Bundles(Role.UNIFIED, 2, 8)),
        (pool(tp=4, pp=2), Bundles(Role.UNIFIED, 1, 8)),
        (pool(dp=16, nodes=2), Bundles(Role.UNIFIED, 2, 8)),
        (pool(tp=4, dp=4, nodes=2), Bundles(Role.UNIFIED, 2, 8)),
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


def test_data_parallel_ranks_that_do_not_divide_over_the_nodes_are_refused() -> None:
    refused = bundles(pool(tp=4, dp=3, nodes=2))
    assert isinstance(refused, Impossible)
    assert "3 data-parallel ranks" in refused.cause
