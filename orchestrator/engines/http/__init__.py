"""Engines behind an HTTP server of their own, such as `vllm serve`."""

from orchestrator.engines.http.exposition import cache_config
from orchestrator.engines.http.fake_server import FakeServer
from orchestrator.engines.http.http_engine import HttpEngine
from orchestrator.engines.http.reading import read_metrics
from orchestrator.engines.http.upstream import Exchange, Headers, Pool, Upstream

__all__ = [
    "Exchange",
    "FakeServer",
    "Headers",
    "HttpEngine",
    "Pool",
    "Upstream",
    "cache_config",
    "read_metrics",
]
