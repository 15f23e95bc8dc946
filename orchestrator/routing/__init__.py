"""Which rank serves a request; pure policies over a view of the fleet."""

from orchestrator.routing.least_tokens import Choice, NoRank, Reason, choose_rank

__all__ = ["Choice", "NoRank", "Reason", "choose_rank"]
