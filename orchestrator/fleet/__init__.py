"""A gang's life: whether it is alive, and how it ends."""

from orchestrator.fleet.drain import Reason as DrainReason
from orchestrator.fleet.drain import Running, judge, rest_tokens, wait_s
from orchestrator.fleet.drain import Verdict as DrainVerdict
from orchestrator.fleet.life import Drain, Gang, Phase, Refused, choose_drain
from orchestrator.fleet.maintenance import Cause, NodeSeen, Notice, fresh, notices
from orchestrator.fleet.rollout import FreeNode, surges
from orchestrator.fleet.watch import Limits, Observation, Reason, Verdict, Watch, watch

__all__ = [
    "Cause",
    "Drain",
    "DrainReason",
    "DrainVerdict",
    "FreeNode",
    "Gang",
    "Limits",
    "NodeSeen",
    "Notice",
    "Observation",
    "Phase",
    "Reason",
    "Refused",
    "Running",
    "Verdict",
    "Watch",
    "choose_drain",
    "fresh",
    "judge",
    "notices",
    "rest_tokens",
    "surges",
    "wait_s",
    "watch",
]
