"""Whether the request's KV fits beside what is running."""

from orchestrator.routing.candidates import Candidates


def kv_room(seen: Candidates) -> list[float]:
    """Seconds until enough running requests have ended for this one's KV to fit.

    Reads the ledger; a rank whose size is not known costs nothing. That a prefix hit takes no new
    room is not counted: its blocks may go before the request gets there.
    """
    grown = seen.output_tokens / 2  # of a request that is on average half done
    own = seen.question.prompt_tokens + seen.output_tokens
    room = [
        rank.kv_tokens - rank.decoding_tokens - batch * grown
        for rank, batch in zip(seen.ranks, seen.batch, strict=True)
    ]
    if min(room) >= own:
        return seen.nothing
    return [
        _freed_s(seen, at, own - free) if free < own and seen.ranks[at].kv_tokens else 0.0
        for at, free in enumerate(room)
    ]


def _freed_s(seen: Candidates, at: int, short: float) -> float:
    """How long the running requests take to free so many tokens; they end one after the other."""
    rank, batch = seen.ranks[at], seen.batch[at]
    held = rank.decoding_tokens + batch * seen.output_tokens / 2
    if not held:
        return 0.0
    lasts_s = seen.output_tokens * seen.costs.step_s(batch, held)
    return short / held * lasts_s
