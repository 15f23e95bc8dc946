"""A gateway in front of engines that serve OpenAI's API themselves: routing, and nothing else."""

import asyncio
import socket
from collections.abc import Sequence

import msgspec

from orchestrator.core import EngineStartError, RankId
from orchestrator.engines.http import Pool, cache_config, read_metrics
from orchestrator.gateway.client_connection import ClientConnection, Clients
from orchestrator.gateway.proxy import Proxy, ProxyLimits
from orchestrator.gateway.request_reader import Request
from orchestrator.routing import Router, StepCosts, same_costs
from orchestrator.telemetry import CONTENT_TYPE, Log, Metrics

LOOK_S = 2.0  # between two looks at engines that do not answer
EXPIRE_S = 1.0  # between two looks at clients that take too long
BACKLOG = 2048  # connections that wait to be accepted; the kernel may allow fewer


class Passthrough:
    """A server: `/health` and `/metrics` are its own, all else is the engines'."""

    def __init__(
        self, servers: Sequence[str], costs: StepCosts, limits: ProxyLimits, log: Log
    ) -> None:
        """`servers` are host:port, and the ranks' ids."""
        self._servers = {RankId(server): Pool(server) for server in servers}
        self._metrics = Metrics()
        router = Router(limits.block_tokens, limits.blocks_max, same_costs(costs))
        self._proxy = Proxy(router, limits, self._metrics)
        self._clients = Clients(self._on_request, limits.stall_s, limits.max_body_bytes, {})
        self._log = log
        self._stopping = asyncio.Event()
        self._cutting = asyncio.Event()

    async def serve(self, sock: socket.socket) -> None:
        """Serves until it is stopped and the answers that ran then have ended."""
        loop = asyncio.get_running_loop()
        await self._look()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch()), group.create_task(self._expire())]
            server = await loop.create_server(
                lambda: ClientConnection(self._clients), sock=sock, backlog=BACKLOG
            )
            await self._stopping.wait()
            server.close()
            await self._drain()
            for task in tasks:
                task.cancel()
        for pool in self._servers.values():
            await pool.close()

    def stop(self) -> None:
        """Takes no more requests; if it does not already, or else ends what still runs."""
        if self._stopping.is_set():
            self._cutting.set()
        self._stopping.set()

    async def _drain(self) -> None:
        clients = self._clients
        for client in list(clients.open):
            client.drain()
        while clients.open and not self._cutting.is_set():
            try:
                async with asyncio.timeout(0.1):
                    await self._cutting.wait()
            except TimeoutError:
                pass
        for client in list(clients.open):
            client.abort()
        await asyncio.sleep(0)  # until they have gone

    def _on_request(self, client: ClientConnection, request: Request) -> None:
        match request.target.partition(b"?")[0]:
            case b"/health":
                reached = len(self._proxy.reached)
                body = {"ready": reached > 0, "engines": len(self._servers), "reached": reached}
                client.answer(200 if reached else 503, msgspec.json.encode(body))
            case b"/metrics":
                client.answer(200, self._metrics.exposition(), CONTENT_TYPE)
            case _:
                self._proxy.on_request(client, request)

    async def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EXPIRE_S)
            self._clients.expire(loop.time())

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
            block_tokens, blocks = cache_config(await read_metrics(pool))
        except EngineStartError as error:
            self._log.info("engine_missing", rank_id=rank_id, cause=error.cause)
            return
        self._log.info("engine_reached", rank_id=rank_id, kv_tokens=block_tokens * blocks)
        self._proxy.join(rank_id, pool, block_tokens * blocks)
