"""The simulated host: deciding code in virtual time, against engines that are arithmetic."""

from orchestrator.sim.agenda import Agenda
from orchestrator.sim.engine import EngineModel, HitAt, Job, Outlet, SimEngine
from orchestrator.sim.fleet import EventPath, Load, Played, Policy, play, prompt_ids
from orchestrator.sim.policies import LOAD_ONLY, POLICIES, Ours, costs_of
from orchestrator.sim.routing_report import Scores, scores

__all__ = [
    "LOAD_ONLY",
    "POLICIES",
    "Agenda",
    "EngineModel",
    "EventPath",
    "HitAt",
    "Job",
    "Load",
    "Ours",
    "Outlet",
    "Played",
    "Policy",
    "Scores",
    "SimEngine",
    "costs_of",
    "play",
    "prompt_ids",
    "scores",
]
