"""The work that a rank has with the prompt."""

from orchestrator.routing.candidates import Candidates


def prefill(seen: Candidates) -> list[float]:
    """Seconds to compute what the rank does not hold.

    Reads the prefix hits, which are as old as the rank's last KV event.
    """
    return seen.work_s
