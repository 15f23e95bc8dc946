"""Each layout of R1 as gangs of real vLLM on nodes with addresses of their own."""

from collections.abc import Iterator

import pytest

from orchestrator.spec import KvHandoff
from tests.layouts.layout_stack import ONE_RANK, LayoutStack, check_greedy, layout_stack, metric

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(1_500)]

# Each class has a stack of its own, which ends before the next one starts.


@pytest.mark.subset
class TestAcrossNodes:
    """Gangs that span nodes; each node has one GPU, so no two ranks share one."""

    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
        """Five nodes."""
        folder = tmp_path_factory.mktemp("across")
        with layout_stack(folder, (ONE_RANK, "pp2", "dp2ep2"), nodes=5, gpus_per_node=1) as stack:
            yield stack

    def test_pipeline_stages_on_two_nodes(self, stack: LayoutStack) -> None:
        check_greedy(stack, "pp2")
        assert len(stack.hosts("pp2")) == 2

    def test_data_parallel_ranks_on_two_nodes_that_share_the_experts(
        self, stack: LayoutStack
    ) -> None:
        check_greedy(stack, "dp2ep2")
        assert len(stack.hosts("dp2ep2")) == 2
        assert len(stack.chosen("dp2ep2")) == 2, "each rank is routed to by itself"

    def test_a_start_tells_what_it_is_at(self, stack: LayoutStack) -> None:
        told = [str(line["phases"]) for line in stack.log("engine_phases")]
        assert any("weights" in phases for phases in told)
        assert any("ready" in phases for phases in told)


class TestWideDecode:
    """Data-parallel decode ranks on two nodes; tensor-parallel groups inside one and across two."""

    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
        """Five nodes."""
        folder = tmp_path_factory.mktemp("wide")
        layouts = (ONE_RANK, "p1dp2", "tp2", "p1d1")
        with layout_stack(folder, layouts, nodes=5, gpus_per_node=2) as stack:
            yield stack

    def test_a_tensor_parallel_gang_prefills_for_data_parallel_ranks(
        self, stack: LayoutStack
    ) -> None:
        check_greedy(stack, "p1dp2")
        assert len(stack.chosen("p1dp2")) == 3, "the prefill rank and both decode ranks"

    def test_a_prefill_gang_across_nodes_feeds_one_decode_gang(self, stack: LayoutStack) -> None:
        check_greedy(stack, "p1d1")
        assert len(stack.chosen("p1d1")) == 2, "the prefill gang and the decode gang"
        assert len(stack.hosts("p1d1")) >= 2

    def test_tensor_parallelism_inside_a_node(self, stack: LayoutStack) -> None:
        check_greedy(stack, "tp2")
        assert len(stack.hosts("tp2")) == 1


class TestTwoAxes:
    """Tensor parallelism inside nodes and stages across them; experts dealt to two ranks."""

    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
        """Four nodes."""
        folder = tmp_path_factory.mktemp("axes")
        with layout_stack(folder, (ONE_RANK, "tp2pp2", "ep2"), nodes=4, gpus_per_node=2) as stack:
            yield stack

    def test_tensor_parallelism_inside_nodes_and_stages_across_them(
        self, stack: LayoutStack
    ) -> None:
        check_greedy(stack, "tp2pp2")
        assert len(stack.hosts("tp2pp2")) == 2

    def test_experts_dealt_to_the_ranks_of_a_tensor_parallel_group(
        self, stack: LayoutStack
    ) -> None:
        check_greedy(stack, "ep2")


class TestPrefillThatPushes:
    """P/D over Mooncake: both gangs begin at once, and the prefill gang writes."""

    @pytest.fixture(scope="class")
    @classmethod
    def stack(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
        """Four nodes."""
        folder = tmp_path_factory.mktemp("push")
        layouts = (ONE_RANK, "p1d1")
        with layout_stack(folder, layouts, 4, 1, kv=KvHandoff.PUSH) as stack:
            yield stack

    def test_a_prefill_gang_writes_into_a_decode_gang(self, stack: LayoutStack) -> None:
        check_greedy(stack, "p1d1")
        assert len(stack.chosen("p1d1")) == 2, "the prefill gang and the decode gang"
        [decode] = stack.ready("p1d1", "decode")
        taken = metric(decode, "prompt_tokens_by_source_total", source="external_kv_transfer")
        assert taken > 0, "it has not computed the prompts itself"
