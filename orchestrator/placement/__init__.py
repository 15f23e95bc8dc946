"""Which nodes a gang asks for, which it gets, and whether the fleet fits."""

from orchestrator.placement.bundles import Bundles, Impossible, bundles, node_label, spread
from orchestrator.placement.nodes import Node, PlacedGang, place

__all__ = [
    "Bundles",
    "Impossible",
    "Node",
    "PlacedGang",
    "bundles",
    "node_label",
    "place",
    "spread",
]
