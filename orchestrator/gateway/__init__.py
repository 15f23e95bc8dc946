"""HTTP: the DeepSeek API over the ranks of a fleet."""

from orchestrator.gateway.app import build_app
from orchestrator.gateway.ranks import Member
from orchestrator.gateway.service import Service
from orchestrator.gateway.supervisor import Supervisor

__all__ = ["Member", "Service", "Supervisor", "build_app"]
