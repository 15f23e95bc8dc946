"""The gateway's end of a token channel: connects, reconnects, and hosts `GatewaySide`."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from enum import StrEnum
from typing import cast

from typing_extensions import override

from orchestrator.core import Role
from orchestrator.engines.channel.frames import Beat
from orchestrator.engines.channel.gateway_side import Caller, GatewaySide, TokenSink
from orchestrator.engines.channel.limits import ChannelLimits
from orchestrator.engines.channel.liveness import Phase
from orchestrator.engines.channel.sockets import no_delay, split_address
from orchestrator.engines.engine import End, EngineInfo, EngineLoad, Finish, Submit
from orchestrator.fleet.doctor import Vitals
from orchestrator.handoff import Word
from orchestrator.routing import Credit


class ChannelState(StrEnum):
    """Whether a rank can be reached."""

    CONNECTING = "connecting"  # the first attempt has not ended
    OPEN = "open"
    LOST = "lost"  # an attempt failed or a connection broke; more attempts follow until `close`


class RankChannel:
    """All requests of one gateway replica to one engine process.

    `on_state` is called after each change of `state`, after the ends that a loss brings, and when
    the rank begins to drain; `on_word` with what another gateway says.
    Everything is called on the loop of `run`.
    """

    def __init__(
        self,
        address: str,
        engine_id: str,
        *,
        gateway_id: str,
        limits: ChannelLimits | None = None,
        token: str = "",
        on_state: Callable[["RankChannel"], None] | None = None,
        on_word: Callable[[Word], None] | None = None,
    ) -> None:
        """`address` is host:port; `token` is the secret that the engine was started with, or ""."""
        self.address = address
        self.engine_id = engine_id
        self._target = split_address(address)
        self._limits = limits or ChannelLimits()
        self._caller = Caller(gateway_id, engine_id, token)
        self._on_state = on_state
        self._on_word = on_word
        self._told = ChannelState.CONNECTING  # the state that `on_state` knows
        self._connection: _Connection | None = None  # the latest
        self._cause = ""
        self._closed = asyncio.Event()
        self._info: EngineInfo | None = None
        self._role: Role | None = None
        self._load: EngineLoad | None = None
        self._others: Credit | None = None
        self._drain_at: float | None = None
        self._load_at = -math.inf
        self._on_vitals: Callable[[Vitals], None] | None = None

    @property
    def state(self) -> ChannelState:
        """Whether a submit would be sent now."""
        if self._connection is not None and self._connection.side.phase is Phase.OPEN:
            return ChannelState.OPEN
        return ChannelState.LOST if self.cause else ChannelState.CONNECTING

    @property
    def cause(self) -> str:
        """Why the state is LOST, in one sentence; empty otherwise."""
        connection = self._connection
        if connection is None or connection.side.phase is Phase.HELLO:
            return self._cause
        return connection.side.cause

    @property
    def info(self) -> EngineInfo | None:
        """What the engine said of itself when the channel was last opened."""
        return self._info

    @property
    def role(self) -> Role | None:
        """The engine's role, as it said when the channel was last opened."""
        return self._role

    @property
    def load(self) -> EngineLoad | None:
        """The load of the last heartbeat; ask `load_age` how old it is."""
        return self._load

    @property
    def others(self) -> Credit | None:
        """What other gateways had in flight there by the last heartbeat."""
        return self._others

    @property
    def drain_at(self) -> float | None:
        """When what runs at the rank, which gets nothing new, is to be moved, on the loop's clock;
        None while it does not drain. A drain is never taken back.
        """
        return self._drain_at

    def load_age(self, now: float) -> float:
        """Seconds since the last heartbeat; `now` is of the loop's clock. Infinite before it."""
        return now - self._load_at

    @property
    def open_requests(self) -> int:
        """Requests that were sent and have not ended, cancelled ones included."""
        return 0 if self._connection is None else self._connection.side.open_requests

    async def run(self) -> None:
        """Connects, and reconnects after each loss, until `close`. Cancellation closes."""
        pause_s = self._limits.reconnect_min_s
        try:
            while not self._closed.is_set():
                if await self._connect():
                    pause_s = self._limits.reconnect_min_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._closed.wait()
                pause_s = min(2 * pause_s, self._limits.reconnect_max_s)
        finally:
            self.close()

    def submit(self, submit: Submit, sink: TokenSink) -> None:
        """Starts a request. Never raises and never calls the sink from inside: what cannot be sent
        gets its end in the next turn of the loop.
        """
        if self._connection is None:
            end: End | None = End(Finish.LOST, cause=self.cause or "the channel is not open yet")
        else:
            end = self._connection.submit(submit, sink)
        if end is not None:
            asyncio.get_running_loop().call_soon(sink.on_end, end)

    def cancel(self, request_id: str) -> None:
        """Stops a request's tokens at once; its end still comes. Unknown ids are ignored."""
        if self._connection is not None:
            self._connection.cancel(request_id)

    def drain(self, drain_s: float) -> None:
        """Has the rank tell all its gateways that it drains; see `Beat`. Nothing happens if the
        channel is not open.
        """
        if self._connection is not None:
            self._connection.drain(drain_s)

    def say(self, word: Word) -> None:
        """Tells the rank's other gateways."""
        if self._connection is not None:
            self._connection.say(word)

    def look(self, on_vitals: Callable[[Vitals], None]) -> None:
        """Asks how the engine and its node do; `on_vitals` gets the answer, once, if one comes. A
        later call takes the place of one that waits.
        """
        self._on_vitals = on_vitals
        if self._connection is not None:
            self._connection.look()

    def close(self) -> None:
        """Ends every open request with LOST, then `run`; for good."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._cause = "the channel was closed"
        if self._connection is not None:
            self._connection.cut(self._cause)
        self._tell()

    async def _connect(self) -> bool:
        """One life of one connection; whether it was ever open."""
        loop = asyncio.get_running_loop()
        side = GatewaySide(self._caller, self._limits, self._take_beat, loop.time())
        connection = _Connection(side, self._limits, loop, self._settle)
        self._connection = connection
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await loop.create_connection(lambda: connection, *self._target)
            await connection.tick_until_cut()
        except OSError as error:  # a timeout too
            connection.cut(f"cannot connect to {self.address}: {str(error) or 'timeout'}")
        finally:  # cancelled
            connection.cut("the channel was closed")
        if not self._closed.is_set():
            self._cause = side.cause
        return side.welcome is not None

    def _take_beat(self, beat: Beat, now: float) -> None:
        self._load = beat.load
        self._others = beat.others
        self._load_at = now
        if beat.word is not None and self._on_word is not None:
            self._on_word(beat.word)
        if beat.vitals is not None and self._on_vitals is not None:
            on_vitals, self._on_vitals = self._on_vitals, None
            on_vitals(beat.vitals)
        if beat.drain_s is not None:
            begins = self._drain_at is None
            self._drain_at = min(self._drain_at or math.inf, now + beat.drain_s)
            if begins and self._on_state is not None:
                self._on_state(self)

    def _settle(self, side: GatewaySide) -> None:
        if side.welcome is not None:
            self._info = side.welcome.info
            self._role = side.welcome.role
        self._tell()

    def _tell(self) -> None:
        state = self.state
        if state is not self._told:
            self._told = state
            if self._on_state is not None:
                self._on_state(self)


class _Connection(asyncio.Protocol):
    """One connection: moves bytes between a transport and a `GatewaySide`."""

    def __init__(
        self,
        side: GatewaySide,
        limits: ChannelLimits,
        loop: asyncio.AbstractEventLoop,
        on_phase: Callable[[GatewaySide], None],
    ) -> None:
        self.side = side
        self._limits = limits
        self._loop = loop
        self._on_phase = on_phase
        self._phase = side.phase  # what `on_phase` knows
        self._transport: asyncio.Transport | None = None
        self._cut = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TCP is both ways
        no_delay(self._transport)
        self._transport.set_write_buffer_limits(high=self._limits.high_water_bytes)
        self._settle()

    @override
    def data_received(self, data: bytes) -> None:
        self.side.receive(data, self._loop.time())
        self._settle()

    @override
    def pause_writing(self) -> None:
        self.side.pause(self._loop.time())

    @override
    def resume_writing(self) -> None:
        self.side.resume()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        cause = "the engine closed the connection" if exc is None else f"connection lost: {exc}"
        self.cut(cause, died=True)

    def submit(self, submit: Submit, sink: TokenSink) -> End | None:
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        end = self.side.submit(submit, sink, unsent)
        self._settle()
        return end

    def cancel(self, request_id: str) -> None:
        self.side.cancel(request_id, self._loop.time())
        self._settle()

    def drain(self, drain_s: float) -> None:
        self.side.drain(drain_s)
        self._settle()

    def say(self, word: Word) -> None:
        self.side.say(word)
        self._settle()

    def look(self) -> None:
        self.side.look()
        self._settle()

    def cut(self, cause: str, *, died: bool = False) -> None:
        """Closes the side, which ends its requests, and the transport; later calls do nothing."""
        self.side.close(cause, died=died)
        self._settle()

    async def tick_until_cut(self) -> None:
        while not self._cut.is_set():
            self.side.tick(self._loop.time())
            self._settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.heartbeat_s):
                    await self._cut.wait()

    def _settle(self) -> None:
        phase = self.side.phase
        if self._transport is not None:
            if phase is Phase.CLOSED:
                self._cut.set()
                self._transport.abort()
            else:
                output = self.side.output()
                if output:
                    self._transport.write(output)
        # A sink that is given its end may have called us; the last of the ends tells the phase.
        if phase is not self._phase and not (phase is Phase.CLOSED and self.side.open_requests):
            self._phase = phase
            self._on_phase(self.side)
