"""Who is served now, who waits, who is refused."""

from orchestrator.admission.queue import (
    Admission,
    Admit,
    Arrived,
    Capacity,
    Decision,
    Event,
    Left,
    Passed,
    Queue,
    Reason,
    Shed,
)

__all__ = [
    "Admission",
    "Admit",
    "Arrived",
    "Capacity",
    "Decision",
    "Event",
    "Left",
    "Passed",
    "Queue",
    "Reason",
    "Shed",
]
