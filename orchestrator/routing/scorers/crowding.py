"""What the request's prefill costs those who come after it."""

from orchestrator.routing.candidates import Candidates


def crowding(seen: Candidates) -> list[float]:
    """Seconds that later requests wait because of this one.

    Work put on a queue delays whoever arrives at the rank before the queue is empty. So recomputing
    what another rank holds is dear when requests come fast, and free when they do not.
    """
    rate = seen.arrivals_per_s
    if not rate:
        return seen.nothing
    return [
        rate * work_s * (wait_s + work_s / 2)
        for work_s, wait_s in zip(seen.work_s, seen.wait_s, strict=True)
    ]
