"""What is ahead of the request on a rank."""

from orchestrator.routing.candidates import Candidates


def queue(seen: Candidates) -> list[float]:
    """Seconds until the rank turns to the request: prefills before it, and a slot if all are held.

    Reads the gateway's own ledger, exact for its own requests, and what others said they have.
    """
    return [
        wait_s if batch < rank.slots or not rank.slots else wait_s + _slot_s(seen, at)
        for at, (rank, wait_s, batch) in enumerate(
            zip(seen.ranks, seen.wait_s, seen.batch, strict=True)
        )
    ]


def _slot_s(seen: Candidates, at: int) -> float:
    """The requests that hold the slots leave one by one, evenly over an output's time."""
    rank = seen.ranks[at]
    step_s = seen.costs.step_s(rank.slots, rank.decoding_tokens)
    return (seen.batch[at] + 1 - rank.slots) * seen.output_tokens * step_s / rank.slots
