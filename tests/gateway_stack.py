"""A gateway over fake engines: real token channels and a real HTTP server, in one process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import uvicorn

from orchestrator.codec import Tokenizer
from orchestrator.core import RankId, Role
from orchestrator.engines import ChannelServer, FakeEngine, FakeEngineSpec
from orchestrator.engines.channel.sockets import bound_socket, name_of
from orchestrator.engines.fake_engine import Author
from orchestrator.gateway import DirectProtocol, Member, Models, Tenants, build_app
from orchestrator.spec import Spec
from orchestrator.telemetry import open_log


class Rank:
    """A fake engine behind a channel server, of the spec's only model unless one is named."""

    def __init__(
        self,
        role: Role,
        name: str,
        spec: FakeEngineSpec,
        *,
        model: str = "",
        author: Author | None = None,
    ) -> None:
        self.role = role
        self.name = name
        self.model = model
        self.engine = FakeEngine(spec, name, author)
        self.server = ChannelServer(self.engine, name, role, look=self.engine.look)

    async def start(self) -> Member:
        """Serves its channel from now on."""
        await self.server.start()
        sock = bound_socket("127.0.0.1", 0)
        await self.server.listen(sock)
        return Member(RankId(f"{self.name}/0"), self.role, name_of(sock), self.name)

    async def stop(self) -> None:
        """Ends the engine and every connection to it."""
        self.server.close("the test ends it")
        await self.engine.stop()


class GatewayStack:
    """A running gateway, its ranks, and clients for it."""

    def __init__(self, url: str, models: Models, ranks: Mapping[str, Rank], logs: Path) -> None:
        self.url = url
        self.models = models
        self.ranks = ranks
        self.logs = logs
        self.openai = openai.AsyncOpenAI(base_url=url, api_key="sk-any", max_retries=0, timeout=20)
        self.http = httpx.AsyncClient(base_url=url, timeout=20)

    async def ask(self, question: str, **more: object) -> tuple[str, str, str]:
        """Reasoning, answer and finish reason of one streamed completion."""
        reasoning, answer, finish = "", "", ""
        stream = await self.openai.chat.completions.create(
            model="deepseek-reasoner",
            messages=[{"role": "user", "content": question}],
            stream=True,
            **more,  # type: ignore[call-overload]
        )
        async for chunk in stream:
            delta = chunk.choices[0].delta
            reasoning += getattr(delta, "reasoning_content", None) or ""
            answer += delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        return reasoning, answer, finish


@asynccontextmanager
async def gateway_stack(
    spec: Spec,
    tokenizers: Mapping[str, Tokenizer],
    ranks: Sequence[Rank],
    logs: Path,
    port: int = 0,
    send_buffer_bytes: int | None = None,
    gateway_id: str = "gateway-test",
) -> AsyncIterator[GatewayStack]:
    """Serves `spec` until the block ends; ready when every rank can be reached.

    All that it writes is in `logs`. `send_buffer_bytes` is the system's for each client; None
    leaves it megabytes.
    """
    spec = replace(spec, log_dir=str(logs))
    written = [open_log("test", logs / name) for name in ("log", "decisions")]
    models = Models(spec, gateway_id, tokenizers, *written)
    tenants = Tenants(spec, gateway_id, models.metrics, written[0])
    listed = [(rank.model or spec.models[0].name, await rank.start()) for rank in ranks]

    def list_pools() -> None:
        for model in spec.models:
            for role in Role:
                members = [m for name, m in listed if name == model.name and m.role is role]
                models.update_pool(model.name, role, members)

    app = build_app(models, tenants, list_pools)
    config = uvicorn.Config(app, http=DirectProtocol, log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    sock = bound_socket("127.0.0.1", port)
    if send_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve([sock]))
        watching = [group.create_task(rank.server.watch()) for rank in ranks]  # the heartbeats
        running = GatewayStack(
            f"http://{name_of(sock)}", models, {rank.name: rank for rank in ranks}, logs
        )
        try:
            await until(lambda: server.started)
            await until(lambda: _reached(models) == len(ranks))
            yield running
        finally:
            await running.openai.close()
            await running.http.aclose()
            server.should_exit = True
            await serving
            for watch in watching:
                watch.cancel()
            for rank in ranks:
                await rank.stop()
            for log in written:
                log.close()


def _reached(models: Models) -> int:
    """Ranks that can be asked, or were found not to fit the others."""
    services = [models.served(model).service for model in models.spec.models]
    refused = sum(bool(each.refused) for service in services for each in service.ranks.listed())
    return refused + sum(sum(roles.values()) for roles in models.ranks().values())


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; raises TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
