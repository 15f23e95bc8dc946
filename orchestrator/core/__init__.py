"""Ids, requests, views of the fleet and the error tree; standard library only."""

from orchestrator.core.errors import (
    EngineStartError,
    LayoutError,
    PortInUseError,
    R1ServeError,
    SpecError,
    StartError,
)
from orchestrator.core.generation import Finish, KvParams, KvSource, TokenLogprob
from orchestrator.core.histogram import Histogram
from orchestrator.core.ids import GangId, NodeId, RankId, RequestId
from orchestrator.core.request import Request, Role
from orchestrator.core.token_ids import TokenIds, token_ids
from orchestrator.core.tokens import TokenClass, TokenCounts
from orchestrator.core.view import FleetView, RankView

__all__ = [
    "EngineStartError",
    "Finish",
    "FleetView",
    "GangId",
    "Histogram",
    "KvParams",
    "KvSource",
    "LayoutError",
    "NodeId",
    "PortInUseError",
    "R1ServeError",
    "RankId",
    "RankView",
    "Request",
    "RequestId",
    "Role",
    "SpecError",
    "StartError",
    "TokenClass",
    "TokenCounts",
    "TokenIds",
    "TokenLogprob",
    "token_ids",
]
