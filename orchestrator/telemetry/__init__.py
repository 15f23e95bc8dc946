"""Logs, the decision log, metrics."""

from orchestrator.telemetry import metrics
from orchestrator.telemetry.log import Log, open_log
from orchestrator.telemetry.metrics import CATALOGUE
from orchestrator.telemetry.metrics.metric import Kind, Metric
from orchestrator.telemetry.registry import CONTENT_TYPE, Metrics

__all__ = ["CATALOGUE", "CONTENT_TYPE", "Kind", "Log", "Metric", "Metrics", "metrics", "open_log"]
