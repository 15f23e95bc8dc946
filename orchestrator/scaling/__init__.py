"""How many gangs of each role there are to be: prefill and decode in one decision."""

from orchestrator.scaling.capacity import PoolFacts, Slo
from orchestrator.scaling.decide import (
    Decision,
    Gangs,
    Plan,
    Reason,
    Seen,
    State,
    Target,
    decide,
    dwell_s,
)
from orchestrator.scaling.facts import plan_of
from orchestrator.scaling.observation import Meter, Observation, together

__all__ = [
    "Decision",
    "Gangs",
    "Meter",
    "Observation",
    "Plan",
    "PoolFacts",
    "Reason",
    "Seen",
    "Slo",
    "State",
    "Target",
    "decide",
    "dwell_s",
    "plan_of",
    "together",
]
