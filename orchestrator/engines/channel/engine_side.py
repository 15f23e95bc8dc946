"""The engine's side of one connection: bytes and engine output in, bytes and engine calls out.

No I/O, no clock. What waits to be sent is kept per request, so its size is bounded by the requests'
own `max_tokens` however slowly the gateway reads.
"""

import hmac
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import msgspec

from orchestrator.core import Role, TokenLogprob
from orchestrator.engines.channel import frames
from orchestrator.engines.channel.limits import ChannelLimits
from orchestrator.engines.channel.liveness import Liveness, Phase
from orchestrator.engines.engine import End, EngineInfo, EngineLoad, Finish, Submit
from orchestrator.fleet.doctor import Vitals
from orchestrator.handoff import Word
from orchestrator.routing import Credit

_CAUSE_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Callee:
    """Who is reached: the engine process, what it says of itself, and the shared secret or ""."""

    engine_id: str
    role: Role
    info: EngineInfo
    token: str = ""


class Host(Protocol):
    """What a connection asks of its host. Handles are this connection's own."""

    def start(self, handle: int, submit: Submit) -> None:
        """Submits to the engine; `on_tokens` and `on_end` of this handle follow."""
        ...

    def abort(self, handle: int) -> None:
        """Aborts in the engine; its end still follows, and is ignored once the side is closed."""
        ...

    def wake(self) -> None:
        """There is output: call `output` once this turn of the loop is over."""
        ...

    def drain(self, drain_s: float) -> None:
        """The gang drains: from now on `tick` is told how long what runs may go on."""
        ...

    def pass_on(self, word: Word) -> None:
        """The gateway has something to tell the others."""
        ...

    def look(self) -> None:
        """The gateway asks for the rank's vitals; `show` answers."""
        ...


class EngineSide:
    """Serves one gateway. Each `Open` gets its `Ended` once, unless the connection is lost before.

    After `receive` and `tick` the host sends what `output` returns, and cuts the connection if
    `phase` is CLOSED; the last bytes then say why.
    """

    def __init__(self, callee: Callee, limits: ChannelLimits, host: Host, now: float) -> None:
        self.phase = Phase.HELLO
        self.cause = ""  # why it is closed
        self.gateway_id = ""
        self._callee = callee
        self._limits = limits
        self._host = host
        self._liveness = Liveness(limits, now)
        self._welcome_by = now + limits.connect_s
        self._reader = frames.gateway_reader(limits.max_frame_bytes)
        self._last_handle = -1
        self._running: set[int] = set()  # in the engine
        self._others = frames.NOTHING  # as the gateway was last told
        self._drains = False  # the same
        self._control: list[bytes] = []
        self._tokens: dict[int, list[int]] = {}  # not sent yet, by handle
        self._logprobs: dict[int, list[TokenLogprob]] = {}  # one for each of those, if wanted
        self._ended: deque[bytes] = deque()  # frames not sent yet; their requests count as open

    @property
    def open_requests(self) -> int:
        """Requests whose end has not been sent."""
        return len(self._running) + len(self._ended)

    @property
    def unsent_tokens(self) -> int:
        """Tokens that wait for the gateway to read."""
        return sum(map(len, self._tokens.values()))

    def on_tokens(self, handle: int, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        """New ids of a running request, to be sent with the others of this turn."""
        tokens = self._tokens
        if not tokens:
            if self.phase is Phase.CLOSED:
                return
            self._host.wake()
        held = tokens.get(handle)
        tokens[handle] = ids if held is None else held + ids  # the engine may still own `ids`
        if logprobs:
            self._logprobs[handle] = [*self._logprobs.get(handle, ()), *logprobs]
            assert len(self._logprobs[handle]) == len(tokens[handle]), "one logprob for each id"

    def on_end(self, handle: int, end: End) -> None:
        """The end of a running request; sent after its tokens."""
        if self.phase is Phase.CLOSED:
            return
        assert handle in self._running, "an end of a request that does not run"
        self._running.remove(handle)
        self._queue_end(handle, end)

    def receive(self, data: bytes, now: float) -> None:
        """Takes bytes of the gateway; a bad frame closes the connection."""
        self._liveness.heard(now)
        try:
            for message in self._reader.feed(data):
                if self.phase is Phase.CLOSED:
                    return
                self._take(message)
        except frames.FrameError as error:
            self.close(f"the gateway sent {error}")

    def tick(
        self, now: float, load: EngineLoad, others: Credit, drain_s: float | None = None
    ) -> None:
        """Sends a heartbeat if one is due, or if what the `others` have in flight has changed, or
        the rank drains since the last; closes a lost connection. Call it every heartbeat.
        """
        if self.phase is Phase.CLOSED:
            return
        lapse = self._liveness.lapse(now)
        if lapse is None and self.phase is Phase.HELLO and now >= self._welcome_by:
            lapse = f"the gateway did not say hello within {self._limits.connect_s:g} s"
        if lapse is not None:
            self.close(lapse)
            return
        live = self.phase is Phase.OPEN and not self._liveness.paused
        drains = drain_s is not None
        news = others != self._others or drains != self._drains
        if live and (self._liveness.beat_due(now) or news):
            self._others, self._drains = others, drains
            self._control.append(frames.frame(frames.Beat(load, others, drain_s)))

    def tell(self, word: Word, load: EngineLoad, drain_s: float | None) -> None:
        """Another gateway has said so."""
        if self.phase is Phase.OPEN:
            beat = frames.Beat(load, self._others, drain_s, word)
            self._control.append(frames.frame(beat))
            self._host.wake()

    def show(self, vitals: Vitals, load: EngineLoad, drain_s: float | None) -> None:
        """The answer to the host's `look`."""
        if self.phase is Phase.OPEN:
            beat = frames.Beat(load, self._others, drain_s, vitals=vitals)
            self._control.append(frames.frame(beat))
            self._host.wake()

    def output(self) -> bytes:
        """Takes bytes to send, all or a part: call it until it is empty. Empty while paused."""
        if self._control:
            taken = b"".join(self._control)
            self._control.clear()
            return taken
        if self._liveness.paused:
            return b""
        parts: list[bytes] = []
        if self._tokens:
            frame_max = self._limits.max_frame_bytes
            step = frames.split_tokens(self._tokens, self._logprobs, frame_max)
            parts.append(frames.frame(step))
            if self._tokens:
                return parts[0]
        # No end overtakes its request's tokens: they have all been taken.
        size = 0
        while self._ended and size < self._limits.high_water_bytes:
            parts.append(self._ended.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def pause(self, now: float) -> None:
        """The write buffer is full: from now on tokens are coalesced per request."""
        self._liveness.pause(now)

    def resume(self) -> None:
        """The write buffer has room again: `output` has what was held."""
        self._liveness.resume()

    def close(self, cause: str) -> None:
        """Aborts every request of this connection in the engine; tells the gateway why, at best."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self.cause = cause
        self._tokens.clear()
        self._logprobs.clear()
        self._ended.clear()
        self._control = [frames.frame(frames.Refuse(cause[:_CAUSE_CHARS_MAX]))]
        running = sorted(self._running)
        self._running.clear()
        for handle in running:
            self._host.abort(handle)

    def _take(self, message: frames.FromGateway) -> None:
        if self.phase is Phase.HELLO and not isinstance(message, frames.Hello):
            raise frames.FrameError("a frame before its hello")
        match message:
            case frames.Open():
                self._take_open(message)
            case frames.Cancel():
                if message.handle in self._running:
                    self._host.abort(message.handle)
            case frames.Hello():
                self._take_hello(message)
            case frames.Pulse():
                if message.drain_s is not None:
                    self._host.drain(message.drain_s)
                if message.word is not None:
                    self._host.pass_on(message.word)
                if message.look:
                    self._host.look()
            case _:
                assert_never(message)

    def _take_hello(self, hello: frames.Hello) -> None:
        if self.phase is not Phase.HELLO:
            raise frames.FrameError("a second hello")
        callee = self._callee
        if hello.version != frames.VERSION:
            self.close(f"the engine speaks version {frames.VERSION}, not {hello.version}")
        elif not hmac.compare_digest(hello.token.encode(), callee.token.encode()):
            self.close("the channel token is wrong")
        elif hello.engine_id != callee.engine_id:
            self.close(f"this is engine {callee.engine_id}, not {hello.engine_id}")
        else:
            self.phase = Phase.OPEN
            self.gateway_id = hello.gateway_id
            welcome = frames.Welcome(
                engine_id=callee.engine_id,
                role=callee.role,
                info=callee.info,
                max_requests=self._limits.max_requests,
                max_frame_bytes=self._limits.max_frame_bytes,
            )
            self._control.append(frames.frame(welcome))

    def _take_open(self, opening: frames.Open) -> None:
        handle = opening.handle
        if handle <= self._last_handle:
            raise frames.FrameError("a handle that was used before")
        self._last_handle = handle
        requests_max = self._limits.max_requests
        if self.open_requests < requests_max:
            self._running.add(handle)
            self._host.start(handle, opening.submit)
        elif len(self._ended) < 2 * requests_max:
            cause = f"the channel's {requests_max} requests are all in use"
            self._queue_end(handle, End(Finish.FAILED, cause=cause))
        else:  # a gateway that neither keeps its credit nor reads what it is told
            raise frames.FrameError("more requests than it was given credit for")

    def _queue_end(self, handle: int, end: End) -> None:
        if len(end.cause) > _CAUSE_CHARS_MAX:
            end = msgspec.structs.replace(end, cause=end.cause[:_CAUSE_CHARS_MAX])
        framed = frames.frame(frames.Ended(handle, end))
        if frames.payload_bytes(framed) > self._limits.max_frame_bytes:
            cause = "the KV parameters are above the channel's frame limit"
            framed = frames.frame(frames.Ended(handle, End(Finish.FAILED, cause=cause)))
        self._ended.append(framed)
        self._host.wake()
