"""References that cannot be the prompt's own are found before an engine sees them."""

import pytest

from orchestrator.engines.kv_reference import reference_fault


@pytest.mark.parametrize("held", [20, 21])
def test_a_reference_to_the_prompts_tokens_is_accepted(held: int) -> None:
    assert reference_fault({"remote_num_tokens": held}, 20) is None


@pytest.mark.parametrize("held", [0, 19, 22, None, "20"])
def test_any_other_is_named(held: object) -> None:
    fault = reference_fault({"remote_num_tokens": held}, 20)
    assert fault is not None
    assert "KV reference" in fault


def test_a_reference_without_a_count_is_named() -> None:
    assert reference_fault({}, 20) is not None
