"""A gateway's metrics for the telemetry process of its host.

Behind a load balancer `/metrics` is that of any gateway; this is that of one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.engines.metrics_http import MetricsResponder
from orchestrator.telemetry import Log, Metrics
from orchestrator.telemetry.targets import Target, announce


@asynccontextmanager
async def announced_metrics(
    counted: Metrics, name: str, folder: Path, log: Log
) -> AsyncIterator[None]:
    """Serves them on this host only, at any port, and says in `folder` at which.

    Requests are served without: a folder that cannot be written is said in `log`.
    """
    server = await asyncio.get_running_loop().create_server(
        lambda: MetricsResponder(counted.pieces, lambda: None), "127.0.0.1", 0
    )
    host, port = server.sockets[0].getsockname()
    path = None
    try:
        path = announce(folder, Target(name, f"{host}:{port}"))
    except OSError as fault:
        log.error("metrics_not_announced", cause=str(fault), cure=f"make {folder} writable")
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
        server.close()
