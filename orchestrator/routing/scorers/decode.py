"""What one more request in its batch costs a rank that decodes."""

from orchestrator.routing.candidates import Candidates


def decode(seen: Candidates) -> list[float]:
    """Seconds that the output takes, plus those by which it slows down the rest of the batch.

    Requests still in prefill count: they will decode beside this one. Each of the others is
    slowed for half of the output, since they are on average half done.
    """
    costs, output_tokens = seen.costs, seen.output_tokens
    own = seen.question.prompt_tokens + output_tokens / 2
    slower_s = costs.step_request_s + costs.step_token_s * own
    alone_s = output_tokens * (costs.step_base_s + slower_s)
    if not slower_s:
        return [alone_s] * len(seen.ranks)
    token_s = output_tokens * costs.step_token_s
    other_s = output_tokens * (costs.step_request_s + slower_s / 2) + token_s * output_tokens / 2
    return [
        alone_s + other_s * batch + token_s * rank.decoding_tokens
        for rank, batch in zip(seen.ranks, seen.batch, strict=True)
    ]
