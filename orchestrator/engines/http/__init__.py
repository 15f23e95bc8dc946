"""Engines behind an HTTP server of their own, such as `vllm serve`."""

from orchestrator.engines.http.fake_server import FakeServer
from orchestrator.engines.http.http_engine import HttpEngine
from orchestrator.engines.http.upstream import Exchange, Headers, Pool, Upstream

__all__ = ["Exchange", "FakeServer", "Headers", "HttpEngine", "Pool", "Upstream"]
