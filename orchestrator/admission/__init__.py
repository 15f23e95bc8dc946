"""Who is served now, who waits, who is refused."""

from orchestrator.admission.price import OUTPUT_TOKENS, work_s
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
    "OUTPUT_TOKENS",
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
    "work_s",
]
