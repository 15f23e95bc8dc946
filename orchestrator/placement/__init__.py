"""Which nodes a gang asks for, and whether the fleet fits."""

from orchestrator.placement.bundles import Bundles, Impossible, bundles, place, spread

__all__ = ["Bundles", "Impossible", "bundles", "place", "spread"]
