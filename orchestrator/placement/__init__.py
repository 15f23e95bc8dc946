"""Which layout, on which nodes, and why not another; what a gang asks of the cluster."""

from orchestrator.placement.asked import Asked, Objective, Slo
from orchestrator.placement.bundles import (
    NODE_GROUP,
    Bundles,
    Impossible,
    bundles,
    node_label,
    spread,
)
from orchestrator.placement.cost import per_day, per_million
from orchestrator.placement.fleets import Crew, Fleet, Predict, predict_fleets
from orchestrator.placement.legality import judge
from orchestrator.placement.nodes import Node, PlacedGang, place
from orchestrator.placement.outdone import grouped, outdone
from orchestrator.placement.plan import (
    Bands,
    NoPlan,
    Plan,
    Refusal,
    dollars_per_million,
    mean_rate,
    plan,
)
from orchestrator.placement.pools import batch_limit, pools_of
from orchestrator.placement.reasons import OF_CHOICE, Reason, Violation
from orchestrator.placement.search import Forecast, forecasts, search
from orchestrator.placement.shapes import Shape, shapes
from orchestrator.placement.why import WhatIf, compared, reasons_for, what_ifs

__all__ = [
    "NODE_GROUP",
    "OF_CHOICE",
    "Asked",
    "Bands",
    "Bundles",
    "Crew",
    "Fleet",
    "Forecast",
    "Impossible",
    "NoPlan",
    "Node",
    "Objective",
    "PlacedGang",
    "Plan",
    "Predict",
    "Reason",
    "Refusal",
    "Shape",
    "Slo",
    "Violation",
    "WhatIf",
    "batch_limit",
    "bundles",
    "compared",
    "dollars_per_million",
    "forecasts",
    "grouped",
    "judge",
    "mean_rate",
    "node_label",
    "outdone",
    "per_day",
    "per_million",
    "place",
    "plan",
    "pools_of",
    "predict_fleets",
    "reasons_for",
    "search",
    "shapes",
    "spread",
    "what_ifs",
]
