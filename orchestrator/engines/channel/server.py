"""The engine's end of all token channels: hosts one `EngineSide` per gateway around one engine."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
from typing_extensions import override

from orchestrator.core import Role, TokenLogprob
from orchestrator.engines.channel.engine_side import Callee, EngineSide
from orchestrator.engines.channel.limits import ChannelLimits
from orchestrator.engines.channel.liveness import Phase
from orchestrator.engines.channel.sockets import bound_socket, name_of, no_delay
from orchestrator.engines.engine import End, Engine, EngineInfo, EngineLoad, Finish, Submit
from orchestrator.fleet.doctor import Vitals
from orchestrator.handoff import Word
from orchestrator.routing import Credit

_FAILURE_POLL_S = 0.25
_CREDITS_EVERY_S = 0.05  # at least between two tellings of what other gateways have in flight
_CONNECTIONS_MAX = 1024


class ChannelServer:
    """Shares one engine among any number of gateways; it is the engine's Listener.

    `start`, `listen`, `watch` in this order, or `start` and `serve`. Each request reaches the
    engine under an id of its own, so gateways cannot collide. A lost gateway's are aborted.
    """

    def __init__(
        self,
        engine: Engine,
        engine_id: str,
        role: Role,
        *,
        limits: ChannelLimits | None = None,
        token: str = "",
        look: Callable[[], Vitals] | None = None,
    ) -> None:
        """`look` is how the engine and its node do now; None: it is told nobody."""
        self.address = ""  # host:port, once it listens
        self._engine = engine
        self._engine_id = engine_id
        self._role = role
        self._token = token
        self._look = look
        self._limits = limits or ChannelLimits()
        self._callee: Callee | None = None
        self._listening: asyncio.Server | None = None
        self._made = 0  # connections so far; numbers them
        self._connections: dict[int, _Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._routes: dict[str, _Route] = {}  # by the engine's request id
        self._telling = False  # credits are about to be told
        self._drain_at: float | None = None  # when what runs is to be moved

    @property
    def connections(self) -> int:
        """Gateways that are connected now."""
        return len(self._connections)

    @property
    def open_requests(self) -> int:
        """Requests that the engine has not ended, those of lost gateways included."""
        return len(self._routes)

    @property
    def unsent_tokens(self) -> int:
        """Tokens that wait for gateways that read too slowly."""
        return sum(connection.unsent_tokens for connection in self._connections.values())

    async def start(self) -> EngineInfo:
        """Starts the engine. Raises EngineStartError."""
        info = await self._engine.start(self)
        self._callee = Callee(self._engine_id, self._role, info, self._token)
        return info

    async def listen(self, sock: socket.socket) -> None:
        """Accepts gateways on a bound socket from now on."""
        assert self._callee is not None, "start the engine first"
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._accept, sock=sock)
        self.address = name_of(sock)

    async def watch(self) -> str:
        """Keeps the heartbeats. Returns the cause once the engine has died and all has ended."""
        while True:
            cause = self._engine.failure()
            if cause is not None:
                self.fail(cause)
                return cause
            self._tick()
            await asyncio.sleep(min(_FAILURE_POLL_S, self._limits.heartbeat_s))

    async def serve(self, host: str, port: int) -> str:
        """Listens on host:port and watches. Raises OSError if the port is taken."""
        await self.listen(bound_socket(host, port))
        try:
            return await self.watch()
        finally:
            self.close("the engine is shutting down")

    def fail(self, cause: str) -> None:
        """Ends every request with FAILED, tells the gateways why, and takes no more of them."""
        end = End(Finish.FAILED, cause=cause, died=True)
        for request_id in list(self._routes):
            self.on_end(request_id, end)
        self.close(cause)

    def close(self, cause: str) -> None:
        """Takes no more gateways and cuts those there are, after what is still to be sent."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for connection in list(self._connections.values()):
            connection.cut(cause)

    async def drained(self, timeout_s: float) -> bool:
        """Waits, after `close`, until every connection has gone; whether it was in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        return not self._connections

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        """From the engine. The hot path."""
        route = self._routes.get(request_id)
        if route is not None:
            route[0](route[1], ids, logprobs)

    def on_end(self, request_id: str, end: End) -> None:
        """From the engine. A second end of a request, which no engine should give, is ignored."""
        route = self._routes.pop(request_id, None)
        if route is not None:
            _, handle, connection = route
            if end.finish is Finish.FAILED and self._engine.failure() is not None:
                end = msgspec.structs.replace(end, died=True)
            connection.on_end(handle, end)
            self._credits_changed()

    def route(self, request_id: str, route: "_Route", submit: Submit) -> None:
        """For connections: hands a request to the engine under the id given."""
        self._routes[request_id] = route
        self._credits_changed()
        self._engine.submit(msgspec.structs.replace(submit, request_id=request_id))

    def abort(self, request_id: str) -> None:
        """For connections: aborts in the engine; the route stays until the end comes."""
        self._engine.abort(request_id)

    def begun(self, request_id: str, route: "_Route") -> None:
        """For connections: the request's first token has come, the rest goes this way."""
        self._routes[request_id] = route
        self._credits_changed()

    def others(self, connection: "_Connection") -> Credit:
        """For connections: what all the others have in flight."""
        credits = [other.credit() for other in self._connections.values() if other != connection]
        return Credit(
            sum(credit.requests for credit in credits), sum(credit.prefill_s for credit in credits)
        )

    def _credits_changed(self) -> None:
        if not self._telling and len(self._connections) > 1:
            self._telling = True
            asyncio.get_running_loop().call_later(_CREDITS_EVERY_S, self._tell_credits)

    def _tell_credits(self) -> None:
        self._telling = False
        self._tick()

    def drain(self, drain_s: float) -> None:
        """For connections: whoever looks after the gang wants it to drain. The first wish stands,
        unless a later one leaves less time.
        """
        at = asyncio.get_running_loop().time() + drain_s
        self._drain_at = at if self._drain_at is None else min(at, self._drain_at)
        self._tick()

    def pass_on(self, word: Word, by: "_Connection") -> None:
        """For connections: what one gateway tells the others."""
        drain_s = self.drain_s(asyncio.get_running_loop().time())
        for connection in list(self._connections.values()):
            if connection is not by:
                connection.tell(word, self._engine.load(), drain_s)

    def vitals(self) -> Vitals | None:
        """For connections: how the engine and its node do."""
        return None if self._look is None else self._look()

    def drain_s(self, now: float) -> float | None:
        """For connections: how long what runs may go on; None: it does not drain."""
        return None if self._drain_at is None else max(0.0, self._drain_at - now)

    def _tick(self) -> None:
        now, load = asyncio.get_running_loop().time(), self._engine.load()
        for connection in list(self._connections.values()):
            connection.tick(now, load, self.others(connection), self.drain_s(now))

    def load(self) -> EngineLoad:
        """For connections: the engine's load."""
        return self._engine.load()

    def gone(self, number: int) -> None:
        """For connections: one is no more."""
        self._connections.pop(number, None)
        if not self._connections:
            self._empty.set()

    def _accept(self) -> "_Connection":
        assert self._callee is not None
        loop = asyncio.get_running_loop()
        connection = _Connection(self, self._made, self._callee, self._limits, loop)
        if len(self._connections) >= _CONNECTIONS_MAX:
            connection.cut("the engine has too many connections")
        else:
            self._connections[self._made] = connection
            self._empty.clear()
        self._made += 1
        return connection


class _Connection(asyncio.Protocol):
    """One gateway: moves bytes between a transport and an `EngineSide`, whose host it is."""

    def __init__(
        self,
        server: ChannelServer,
        number: int,
        callee: Callee,
        limits: ChannelLimits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server = server
        self._number = number
        self._limits = limits
        self._loop = loop
        self._side = EngineSide(callee, limits, self, loop.time())
        self._engine_ids: dict[int, str] = {}  # by handle
        self._prefills_s: dict[int, float] = {}  # predicted, of those without a first token
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._woken = False

    @property
    def unsent_tokens(self) -> int:
        return self._side.unsent_tokens

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(self._transport)
        self._transport.set_write_buffer_limits(high=self._limits.high_water_bytes)
        self._flush()

    @override
    def data_received(self, data: bytes) -> None:
        phase = self._side.phase
        now = self._loop.time()
        self._side.receive(data, now)
        if self._side.phase is not phase:  # welcomed or cut
            server = self._server
            self._side.tick(now, server.load(), server.others(self), server.drain_s(now))
            self._flush()

    @override
    def pause_writing(self) -> None:
        self._paused = True
        self._side.pause(self._loop.time())

    @override
    def resume_writing(self) -> None:
        self._paused = False
        self._side.resume()
        self._flush()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._side.close("the gateway closed the connection")
        self._server.gone(self._number)

    def tick(self, now: float, load: EngineLoad, others: Credit, drain_s: float | None) -> None:
        self._side.tick(now, load, others, drain_s)
        self._flush()

    def drain(self, drain_s: float) -> None:
        """For the side."""
        self._server.drain(drain_s)

    def pass_on(self, word: Word) -> None:
        """For the side."""
        self._server.pass_on(word, self)

    def tell(self, word: Word, load: EngineLoad, drain_s: float | None) -> None:
        self._side.tell(word, load, drain_s)

    def look(self) -> None:
        """For the side."""
        if (vitals := self._server.vitals()) is not None:
            drain_s = self._server.drain_s(self._loop.time())
            self._side.show(vitals, self._server.load(), drain_s)

    def credit(self) -> Credit:
        """What its gateway has in flight."""
        return Credit(len(self._engine_ids), sum(self._prefills_s.values()))

    def cut(self, cause: str) -> None:
        """Sends what waits, as far as the gateway reads it, and the cause; then cuts."""
        self._flush()
        self._side.close(cause)
        self._flush()

    def on_end(self, handle: int, end: End) -> None:
        del self._engine_ids[handle]
        self._prefills_s.pop(handle, None)
        self._side.on_end(handle, end)

    def start(self, handle: int, submit: Submit) -> None:
        """For the side."""
        request_id = f"{self._number}.{handle}.{submit.request_id}"
        self._engine_ids[handle] = request_id
        self._prefills_s[handle] = submit.work_s
        self._server.route(request_id, (self._first_tokens, handle, self), submit)

    def _first_tokens(
        self, handle: int, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        del self._prefills_s[handle]
        route = (self._side.on_tokens, handle, self)
        self._server.begun(self._engine_ids[handle], route)
        route[0](handle, ids, logprobs)

    def abort(self, handle: int) -> None:
        """For the side."""
        self._server.abort(self._engine_ids[handle])

    def wake(self) -> None:
        """For the side: flushes once the engine has told all of this turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._woken = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while output := self._side.output():
            transport.write(output)
            if transport.get_write_buffer_size() > self._limits.high_water_bytes:
                if not self._paused:  # the loop will say so, or has written by then
                    self.wake()
                break
        if self._side.phase is Phase.CLOSED:
            self._cut_transport(transport)

    def _cut_transport(self, transport: asyncio.Transport) -> None:
        if self._paused:
            transport.abort()
        else:
            transport.close()
            # A gateway that stops reading now would keep the last bytes, and us, for ever.
            self._loop.call_later(self._limits.connect_s, transport.abort)


_Route = tuple[Callable[[int, list[int], Sequence[TokenLogprob]], None], int, _Connection]
