"""Whether the request's KV fits beside what is running."""

from orchestrator.routing.candidates import Candidates


def kv_room(seen: Candidates) -> list[float]:
    """Seconds until enough running requests have ended for this one's KV to fit.

    Reads the ledger; a rank whose size is not known costs nothing. That a prefix hit takes no new
    room is not counted: its blocks may go before the request gets there.
    """
    grown = seen.output_tokens / 2  # of a request that is on average half done
    own = seen.question.prompt_tokens + seen.output_tokens
    return [
        0.0
        if (short := rank.decoding_tokens + batch * grown + own - rank.kv_tokens) <= 0
        or not rank.kv_tokens
        else _freed_s(seen, at, short)
        for at, (rank, batch) in enumerate(zip(seen.ranks, seen.batch, strict=True))
    ]


def _freed_s(seen: Candidates, at: int, short: float) -> float:
    """How long the running requests take to free so many tokens; they end one after the other."""
    rank, batch = seen.ranks[at], seen.batch[at]
    held = rank.decoding_tokens + batch * seen.output_tokens / 2
    if not held:
        return 0.0
    lasts_s = seen.output_tokens * seen.costs.step_s(batch, held)
    return short / held * lasts_s
