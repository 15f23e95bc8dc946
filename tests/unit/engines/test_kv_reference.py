"""References that cannot be the prompt's own are found before an engine sees them."""

import pytest

from orchestrator.core import KvSource, token_ids
from orchestrator.engines import Sampling, Submit
from orchestrator.engines.kv_reference import kv_transfer_params, reference_fault

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


def test_a_decode_is_not_told_what_its_prefill_had_cached_and_so_counts_its_own() -> None:
    """vLLM would hand that count on as the decode's, and a transfer that failed would look well."""
    reference = {"remote_num_tokens": 20, "remote_block_ids": BLOCKS}
    given = reference | {"remote_prefill_cached_tokens": 16}
    asked = Submit(
        "r", token_ids(range(20)), Sampling(max_tokens=1), KvSource.TRANSFER, kv_params=given
    )
    assert kv_transfer_params(asked) == reference
    assert "remote_prefill_cached_tokens" in given, "the reference is the caller's"
