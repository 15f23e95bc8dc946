"""vLLM's logprobs in our terms, however it has put them together; no engine starts."""

import pytest

from orchestrator.engines import TokenLogprob

pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

# One position each: the id that was drawn, then the best.
STEPS = (
    ([7, 7, 8], [-0.5, -0.5, -1.5]),
    ([9, 7, 8], [-3.0, -0.5, -1.5]),  # drawn from beyond the best
    ([8, 7, 8], [-1.5, -0.5, -1.5]),
)
BEST = ((7, -0.5), (8, -1.5))
EXPECTED = [TokenLogprob(-0.5, BEST), TokenLogprob(-3.0, BEST), TokenLogprob(-1.5, BEST)]


def _of(*steps: tuple[list[int], list[float]]):  # type: ignore[no-untyped-def]  # vLLM's is untyped
    from vllm.logprobs import append_logprobs_for_next_position, create_sample_logprobs

    flat = create_sample_logprobs(flat_logprobs=True)
    for ids, values in steps:
        append_logprobs_for_next_position(flat, ids, values, [None] * len(ids), 1, len(ids) - 1)
    return flat


def test_logprobs_of_one_update_and_of_joined_updates_are_the_same() -> None:
    from orchestrator.engines.vllm_requests import token_logprobs

    assert token_logprobs(_of(*STEPS), 3, 2) == EXPECTED
    joined = _of(STEPS[0])
    joined.extend(_of(STEPS[1]))
    joined.extend(_of(STEPS[2]))
    assert token_logprobs(joined, 3, 2) == EXPECTED


def test_logprobs_of_a_token_that_is_kept_back_are_kept_back() -> None:
    from orchestrator.engines.vllm_requests import token_logprobs

    assert token_logprobs(_of(*STEPS), 2, 2) == EXPECTED[:2]
    assert token_logprobs(_of(*STEPS), 3, None) == token_logprobs(None, 3, 2) == []
    bare = [TokenLogprob(-0.5), TokenLogprob(-3.0), TokenLogprob(-1.5)]
    assert token_logprobs(_of(*(([ids[0]], [values[0]]) for ids, values in STEPS)), 3, 0) == bare
