"""Engines behind an HTTP server of their own, such as `vllm serve`."""

from orchestrator.engines.http.exposition import cache_config
from orchestrator.engines.http.fake_server import FakeServer
from orchestrator.engines.http.http_engine import HttpEngine
from orchestrator.engines.http.reading import read_metrics
from orchestrator.engines.http.upstream import Call, Exchange, Headers, Pool

__all__ = [
    "Call",
    "Exchange",
    "FakeServer",
    "Headers",
    "HttpEngine",
    "Pool",
    "cache_config",
    "read_metrics",
]
