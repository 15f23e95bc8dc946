"""A gang's life."""

from orchestrator.fleet.watch import Observation, Reason, Verdict, Watch, watch

__all__ = ["Observation", "Reason", "Verdict", "Watch", "watch"]
