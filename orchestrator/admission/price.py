"""What a request is predicted to cost: the unit of fairness and of waiting."""

from orchestrator.spec import StepCosts

OUTPUT_TOKENS = 1_000.0  # of a request, where none has ended yet


def work_s(
    prefill: StepCosts, decode: StepCosts, prompt_tokens: int, output_tokens: float, batch: int
) -> float:
    """Seconds of a rank: of the prefill, and its share of the decode steps in a batch so large."""
    context = prompt_tokens + output_tokens / 2
    share_s = decode.step_s(batch, batch * context) / batch
    return prefill.prefill_s(prompt_tokens, 0) + output_tokens * share_s
