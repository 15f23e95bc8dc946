"""The boards: what an operator looks at. Grafana's JSON and the status page are made from them."""

from orchestrator.telemetry.boards.capacity import CAPACITY
from orchestrator.telemetry.boards.cluster import CLUSTER
from orchestrator.telemetry.boards.fabric import FABRIC
from orchestrator.telemetry.boards.gpus import GPUS
from orchestrator.telemetry.boards.panel import Board, Panel, Query, Shape, Show
from orchestrator.telemetry.boards.service import SERVICE
from orchestrator.telemetry.boards.serving import SERVING

BOARDS = (SERVICE, SERVING, GPUS, FABRIC, CLUSTER, CAPACITY)

__all__ = ["BOARDS", "Board", "Panel", "Query", "Shape", "Show"]
