"""A gateway in front of engines that serve OpenAI's API themselves: routing, and nothing else."""

import asyncio
from collections.abc import Sequence

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

from orchestrator.core import EngineStartError, RankId
from orchestrator.engines.http import Pool, cache_config, read_metrics
from orchestrator.gateway.http import send_whole
from orchestrator.gateway.proxy import Proxy, ProxyLimits
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.routing import Router, StepCosts, same_costs
from orchestrator.telemetry import Log, Metrics

LOOK_S = 2.0  # between two looks at engines that do not answer


class Passthrough:
    """An ASGI application: `/health` and `/metrics` are its own, all else is the engines'."""

    def __init__(
        self, servers: Sequence[str], costs: StepCosts, limits: ProxyLimits, log: Log
    ) -> None:
        """`servers` are host:port, and the ranks' ids."""
        self._servers = {RankId(server): Pool(server) for server in servers}
        self._metrics = Metrics()
        router = Router(limits.block_tokens, limits.blocks_max, same_costs(costs))
        self._proxy = Proxy(router, limits, self._metrics)
        self._log = log
        self._supervisor = Supervisor()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or lives."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        match scope["path"]:
            case "/health":
                reached = len(self._proxy.reached)
                body = {"ready": reached > 0, "engines": len(self._servers), "reached": reached}
                await send_whole(send, 200 if reached else 503, msgspec.json.encode(body))
            case "/metrics":
                exposition = self._metrics.exposition()
                await send_whole(send, 200, exposition, content_type=CONTENT_TYPE_LATEST)
            case _:
                await self._proxy(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # that it starts
        await self._supervisor.start()
        await self._look()
        self._supervisor.spawn(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()  # that it ends
        await self._supervisor.stop()
        self._proxy.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    async def _look(self) -> None:
        """Asks every engine that is not reached whether it answers by now."""
        missing = [rank_id for rank_id in self._servers if rank_id not in self._proxy.reached]
        async with asyncio.TaskGroup() as group:
            for rank_id in missing:
                group.create_task(self._reach(rank_id))

    async def _reach(self, rank_id: RankId) -> None:
        pool = self._servers[rank_id]
        try:
            _, blocks = cache_config(await read_metrics(pool))
        except EngineStartError as error:
            self._log.info("engine_missing", rank_id=rank_id, cause=error.cause)
            return
        self._log.info("engine_reached", rank_id=rank_id, kv_blocks=blocks)
        self._proxy.join(rank_id, pool, blocks)
