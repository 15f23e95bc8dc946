"""A gang's life."""

from orchestrator.fleet.watch import Limits, Observation, Reason, Verdict, Watch, watch

__all__ = ["Limits", "Observation", "Reason", "Verdict", "Watch", "watch"]
