"""What is ahead of the request on a rank."""

from orchestrator.routing.candidates import Candidates


def queue(seen: Candidates) -> list[float]:
    """Seconds until the rank turns to the request: prefills before it, and a slot if all are held.

    Reads the gateway's own ledger, exact for its own requests, and what others said they have.
    """
    full = [
        at
        for at, (rank, batch) in enumerate(zip(seen.ranks, seen.batch, strict=True))
        if batch >= rank.slots > 0
    ]
    if not full:
        return seen.wait_s
    waits = list(seen.wait_s)
    for at in full:
        waits[at] += _slot_s(seen, at)
    return waits


def _slot_s(seen: Candidates, at: int) -> float:
    """The requests that hold the slots leave one by one, evenly over an output's time."""
    rank = seen.ranks[at]
    step_s = seen.costs.step_s(rank.slots, rank.decoding_tokens)
    return (seen.batch[at] + 1 - rank.slots) * seen.output_tokens * step_s / rank.slots
