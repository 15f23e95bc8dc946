"""The price of moving the prompt's KV to the rank."""

from orchestrator.routing.candidates import Candidates


def transfer(seen: Candidates) -> list[float]:
    """Seconds to pull what the rank does not hold already."""
    tokens = seen.question.prompt_tokens
    transfer_s = seen.costs.transfer_s
    return [transfer_s(tokens - hit_tokens) for hit_tokens in seen.hit_tokens]
