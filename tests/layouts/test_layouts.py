"""Each layout of R1 as gangs of real vLLM on nodes with addresses of their own."""

from collections.abc import Iterator

import pytest

from tests.layouts.layout_stack import LayoutStack, layout_stack

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(1_500)]

ONE_RANK = "unified"  # the single process that every other layout is compared with


@pytest.fixture(scope="module")
def across_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """Gangs that span nodes; each node has one GPU, so no two ranks share one."""
    folder = tmp_path_factory.mktemp("across")
    with layout_stack(folder, (ONE_RANK, "pp2", "dp2ep2"), nodes=5, gpus_per_node=1) as stack:
        yield stack


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """Prefill and decode apart, each rank on a node of its own."""
    folder = tmp_path_factory.mktemp("apart")
    with layout_stack(folder, (ONE_RANK, "p2d1"), nodes=4, gpus_per_node=1) as stack:
        yield stack


@pytest.fixture(scope="module")
def wide_decode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """A decode gang of data-parallel ranks on two nodes; tensor parallelism inside one."""
    folder = tmp_path_factory.mktemp("wide")
    with layout_stack(folder, (ONE_RANK, "p1dp2", "tp2"), nodes=5, gpus_per_node=2) as stack:
        yield stack


@pytest.fixture(scope="module")
def two_axes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """Tensor parallelism inside nodes and stages across them; experts dealt to two ranks."""
    folder = tmp_path_factory.mktemp("axes")
    with layout_stack(folder, (ONE_RANK, "tp2pp2", "ep2"), nodes=4, gpus_per_node=2) as stack:
        yield stack


def check_greedy(stack: LayoutStack, layout: str) -> None:
    """The outputs are those of one process, which differ from question to question."""
    expected = stack.greedy(ONE_RANK)
    assert len({output.reasoning for output in expected}) == len(expected)
    assert stack.greedy(layout) == expected


@pytest.mark.subset
def test_pipeline_stages_on_two_nodes(across_nodes: LayoutStack) -> None:
    check_greedy(across_nodes, "pp2")
    assert len(across_nodes.hosts("pp2")) == 2


@pytest.mark.subset
def test_data_parallel_ranks_on_two_nodes_that_share_the_experts(
    across_nodes: LayoutStack,
) -> None:
    check_greedy(across_nodes, "dp2ep2")
    assert len(across_nodes.hosts("dp2ep2")) == 2
    assert len(across_nodes.chosen("dp2ep2")) == 2, "each rank is routed to by itself"


@pytest.mark.subset
def test_a_start_tells_what_it_is_at(across_nodes: LayoutStack) -> None:
    told = [str(line["phases"]) for line in across_nodes.log("engine_phases")]
    assert any("weights" in phases for phases in told)
    assert any("ready" in phases for phases in told)


def test_two_prefill_gangs_feed_one_decode_gang(apart: LayoutStack) -> None:
    check_greedy(apart, "p2d1")
    for _ in range(5):
        if len(apart.chosen("p2d1")) == 3:
            break
        apart.greedy("p2d1")
    assert len(apart.chosen("p2d1")) == 3, "both prefill gangs and the decode gang"
    assert len(apart.hosts("p2d1")) == 3


def test_a_tensor_parallel_gang_prefills_for_data_parallel_ranks(
    wide_decode: LayoutStack,
) -> None:
    check_greedy(wide_decode, "p1dp2")
    assert len(wide_decode.chosen("p1dp2")) == 3, "the prefill rank and both decode ranks"


def test_tensor_parallelism_inside_a_node(wide_decode: LayoutStack) -> None:
    check_greedy(wide_decode, "tp2")
    assert len(wide_decode.hosts("tp2")) == 1


def test_tensor_parallelism_inside_nodes_and_stages_across_them(two_axes: LayoutStack) -> None:
    check_greedy(two_axes, "tp2pp2")
    assert len(two_axes.hosts("tp2pp2")) == 2


def test_experts_dealt_to_the_ranks_of_a_tensor_parallel_group(two_axes: LayoutStack) -> None:
    check_greedy(two_axes, "ep2")
