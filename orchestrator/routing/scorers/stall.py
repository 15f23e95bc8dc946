"""How a prefill holds up the requests that decode on the same rank."""

from orchestrator.routing.candidates import Candidates


def stall(seen: Candidates) -> list[float]:
    """Seconds that the rank's running decodes lose, summed over them."""
    share = seen.costs.stall
    if not share:
        return seen.nothing
    return [share * work_s * batch for batch, work_s in zip(seen.batch, seen.work_s, strict=True)]
