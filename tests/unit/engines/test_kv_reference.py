"""References that cannot be the prompt's own are found before an engine sees them."""

import pytest

from orchestrator.engines.kv_reference import reference_fault

BLOCKS = [[7, 8]]  # of 16 tokens


@pytest.mark.parametrize("held", [20, 21])
def test_a_reference_to_the_prompts_tokens_is_accepted(held: int) -> None:
    assert reference_fault({"remote_num_tokens": held, "remote_block_ids": BLOCKS}, 20, 16) is None


@pytest.mark.parametrize("held", [0, 19, 22, None, "20"])
def test_any_other_is_named(held: object) -> None:
    fault = reference_fault({"remote_num_tokens": held, "remote_block_ids": BLOCKS}, 20, 16)
    assert fault is not None
    assert "KV reference" in fault


def test_a_reference_without_a_count_is_named() -> None:
    assert reference_fault({}, 20, 16) is not None


@pytest.mark.parametrize("blocks", [None, [], [[7]], [[7, 8], [1]], [7, 8]])
def test_fewer_blocks_than_the_prompt_fills_are_named(blocks: object) -> None:
    fault = reference_fault({"remote_num_tokens": 20, "remote_block_ids": blocks}, 20, 16)
    assert fault is not None
    assert "blocks" in fault
