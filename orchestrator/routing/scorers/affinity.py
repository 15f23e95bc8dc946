"""A session's last rank may hold more of the prompt than the index knows."""

from orchestrator.routing.candidates import Candidates

KEPT = 0.5  # how likely the rank still holds what nobody vouches for


def affinity(seen: Candidates) -> list[float]:
    """Seconds saved, as a negative cost: a term like the others, which load outweighs.

    The answer of the session's last turn is in no prompt that we hashed, and for a rank without KV
    events its blocks are not in the index.
    """
    question = seen.question
    if question.session_rank is None:
        return seen.nothing
    saved = [0.0] * len(seen.ranks)
    token_s = seen.costs.prefill_token_s
    shared = min(question.session_tokens, question.prompt_tokens)
    for at, rank in enumerate(seen.ranks):
        if rank.rank_id == question.session_rank:
            saved[at] = -KEPT * token_s * max(0, shared - seen.hit_tokens[at])
    return saved
