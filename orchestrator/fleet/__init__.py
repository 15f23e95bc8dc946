"""A gang's life: whether it is alive, and how it ends."""

from orchestrator.fleet.drain import Reason as DrainReason
from orchestrator.fleet.drain import Running, judge, rest_tokens
from orchestrator.fleet.drain import Verdict as DrainVerdict
from orchestrator.fleet.watch import Limits, Observation, Reason, Verdict, Watch, watch

__all__ = [
    "DrainReason",
    "DrainVerdict",
    "Limits",
    "Observation",
    "Reason",
    "Running",
    "Verdict",
    "Watch",
    "judge",
    "rest_tokens",
    "watch",
]
