"""What the channel's fault tests play with: a puppet engine, noting sinks, and a hostile proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import uvloop

from orchestrator.core import Role, token_ids
from orchestrator.engines import (
    ChannelLimits,
    ChannelServer,
    ChannelState,
    End,
    Engine,
    EngineInfo,
    EngineLoad,
    Finish,
    Listener,
    RankChannel,
    Sampling,
    Submit,
    TokenLogprob,
)

PATIENCE_S = 10.0  # a bound, never a measure
LIMITS = ChannelLimits(
    heartbeat_s=0.05,
    lost_after_s=0.6,
    connect_s=2.0,
    reconnect_min_s=0.01,
    reconnect_max_s=0.05,
    high_water_bytes=64 * 1024,
)


def play(scene: Coroutine[None, None, None]) -> None:
    """Runs one test on the loop that production has."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scene

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Waits; the test's own bound ends it."""
    while not condition():
        await asyncio.sleep(0.002)


class Puppet:
    """An engine that does what the test says."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.running: dict[str, Submit] = {}
        self.aborted: list[str] = []
        self.dead: str | None = None

    async def start(self, listener: Listener) -> EngineInfo:
        self.listener = listener
        return EngineInfo("puppet", "none", 1000, 16, 100)

    def submit(self, submit: Submit) -> None:
        assert submit.request_id not in self.running
        self.running[submit.request_id] = submit

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.end(request_id, End(Finish.ABORTED))

    def tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        assert self.listener is not None
        self.listener.on_tokens(request_id, ids, logprobs)

    def end(self, request_id: str, end: End) -> None:
        assert self.listener is not None
        if self.running.pop(request_id, None) is not None:
            self.listener.on_end(request_id, end)

    def load(self) -> EngineLoad:
        return EngineLoad(len(self.running), 0, 0.0, 0)

    def failure(self) -> str | None:
        return self.dead

    def metrics(self) -> bytes:
        return b""

    async def stop(self) -> None: ...


class NotingSink:
    """Notes a request's output and asserts its order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.end: End | None = None

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        assert ids
        assert len(logprobs) in (0, len(ids))
        assert self.end is None
        self.ids += ids
        self.logprobs += logprobs

    def on_end(self, end: End) -> None:
        assert self.end is None
        self.end = end

    async def began(self) -> None:
        await until(lambda: bool(self.ids))

    async def ended(self) -> End:
        await until(lambda: self.end is not None)
        assert self.end is not None
        return self.end


class Proxy:
    """Stands between a gateway and an engine, one connection at a time; does harm on demand."""

    def __init__(self, upstream: str) -> None:
        self.address = ""
        self.cut_after_bytes: int | None = None  # of what the engine sends
        self.flowing = asyncio.Event()  # from the engine
        self.flowing.set()
        self.carried_bytes = 0
        self._upstream = upstream
        self._writers: list[asyncio.StreamWriter] = []
        self._carrying = 0
        self._closed = False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=4096)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            self._closed = True
            server.close()
            self.flowing.set()
            self.cut()
            await until(lambda: not self._carrying)

    def cut(self) -> None:
        """Both ends see their peer gone."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def inject(self, data: bytes) -> None:
        """Both ends get bytes that nobody sent."""
        for writer in self._writers:
            writer.write(data)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._upstream.rpartition(":")
        self._carrying += 1
        self._writers.append(writer)
        with contextlib.suppress(OSError, ExceptionGroup):
            engine_reader, engine_writer = await asyncio.open_connection(
                host, int(port), limit=4096
            )
            self._writers.append(engine_writer)
            if self._closed:  # while we connected
                self.cut()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader, engine_writer))
                group.create_task(self._down(engine_reader, writer))
        writer.transport.abort()
        self._carrying -= 1

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            await self.flowing.wait()
            if self.cut_after_bytes is not None and len(data) >= self.cut_after_bytes:
                writer.write(data[: self.cut_after_bytes])
                await writer.drain()
                self.cut_after_bytes = None
                self.cut()
                return
            self.carried_bytes += len(data)
            if self.cut_after_bytes is not None:
                self.cut_after_bytes -= len(data)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


class World:
    """One engine's server, and what is built around it; everything ends with it."""

    def __init__(self, group: asyncio.TaskGroup, server: ChannelServer) -> None:
        self.server = server
        self._group = group
        self._channels: list[RankChannel] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def around(
        cls, engine: Engine, limits: ChannelLimits = LIMITS, port: int = 0
    ) -> AsyncIterator["World"]:
        server = ChannelServer(engine, "engine", Role.UNIFIED, limits=limits)
        await server.start()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve("127.0.0.1", port))
            await until(lambda: bool(server.address))
            world = cls(group, server)
            # Not in a finally: a failed test cancels the group, which ends all of it as well.
            yield world
            for channel in world._channels:
                channel.close()
            serving.cancel()
        await engine.stop()

    def channel(
        self,
        address: str = "",
        *,
        engine_id: str = "engine",
        limits: ChannelLimits = LIMITS,
        on_state: Callable[[RankChannel], None] | None = None,
    ) -> RankChannel:
        channel = RankChannel(
            address or self.server.address,
            engine_id,
            gateway_id=f"gateway {len(self._channels)}",
            limits=limits,
            on_state=on_state,
        )
        self._channels.append(channel)
        self._group.create_task(channel.run())
        return channel

    async def opened(self, address: str = "", *, limits: ChannelLimits = LIMITS) -> RankChannel:
        channel = self.channel(address, limits=limits)
        await until(lambda: channel.state is ChannelState.OPEN)
        return channel


def request(request_id: str, prompt_tokens: int = 3, max_tokens: int = 10) -> Submit:
    """A request whose output nobody cares for."""
    return Submit(
        request_id, token_ids((5,) * prompt_tokens), Sampling(max_tokens, stop_token_ids=())
    )
