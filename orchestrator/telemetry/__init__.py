"""Logs, the decision log, metrics."""

from orchestrator.telemetry import metrics
from orchestrator.telemetry.log import Log, open_log
from orchestrator.telemetry.metrics import CATALOGUE, Kind, Metric, Metrics

__all__ = ["CATALOGUE", "Kind", "Log", "Metric", "Metrics", "metrics", "open_log"]
