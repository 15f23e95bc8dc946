"""The gateway's side of one connection: bytes and calls in, bytes and sink calls out.

No I/O, no clock. Its life is HELLO -> OPEN -> CLOSED; a lost connection is never reused, its host
makes a new one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from orchestrator.core import TokenLogprob
from orchestrator.engines.channel import frames
from orchestrator.engines.channel.limits import ChannelLimits
from orchestrator.engines.channel.liveness import Liveness, Phase
from orchestrator.engines.engine import End, Finish, Submit
from orchestrator.handoff import Word


class TokenSink(Protocol):
    """Takes one request's output. May call any method of any channel; must not raise."""

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        """New ids: never empty, never after `cancel`, never after the end.

        `logprobs` has one for each id if the request asked for any, and is empty otherwise.
        """
        ...

    def on_end(self, end: End) -> None:
        """The end: exactly once for each submit."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who connects: the gateway, the engine it means to reach, and their shared secret or ""."""

    gateway_id: str
    engine_id: str
    token: str = ""


@dataclass(slots=True)
class _Request:
    request_id: str
    sink: TokenSink


class GatewaySide:
    """Multiplexes requests over one connection and gives each its end exactly once.

    `on_beat` gets each heartbeat. After `receive`, `tick`, `submit` and `cancel` the host
    sends what `output` returns, and cuts the connection if `phase` is CLOSED.
    """

    def __init__(
        self,
        caller: Caller,
        limits: ChannelLimits,
        on_beat: Callable[[frames.Beat, float], None],
        now: float,
    ) -> None:
        self.phase = Phase.HELLO
        self.cause = ""  # why it is closed
        self.welcome: frames.Welcome | None = None
        self._caller = caller
        self._limits = limits
        self._on_beat = on_beat
        self._liveness = Liveness(limits, now)
        self._welcome_by = now + limits.connect_s
        self._reader = frames.engine_reader(limits.max_frame_bytes)
        self._requests: dict[int, _Request] = {}  # open ones by handle, cancelled ones too
        self._sinks: dict[int, TokenSink] = {}  # of those that still want tokens
        self._handles: dict[str, int] = {}
        self._cancelled_until: dict[
            int, float
        ] = {}  # handle -> when we stop waiting; in that order
        self._next_handle = 0
        hello = frames.Hello(frames.VERSION, caller.gateway_id, caller.engine_id, caller.token)
        self._output = [frames.frame(hello)]

    @property
    def open_requests(self) -> int:
        """Requests that have not ended, cancelled ones included."""
        return len(self._requests)

    def output(self) -> bytes:
        """Takes the bytes to send; empty if there are none."""
        if not self._output:
            return b""
        taken = b"".join(self._output)
        self._output.clear()
        return taken

    def submit(self, submit: Submit, sink: TokenSink, unsent_bytes: int) -> End | None:
        """Starts a request, or returns the End that the caller must give to the sink at once."""
        if self.phase is not Phase.OPEN:
            return End(Finish.LOST, cause=self.cause or "the channel is not open yet")
        assert self.welcome is not None
        requests_max = min(self._limits.max_requests, self.welcome.max_requests)
        if len(self._requests) >= requests_max:
            return End(Finish.FAILED, cause=f"the channel's {requests_max} requests are all in use")
        if submit.request_id in self._handles:
            return End(Finish.FAILED, cause="a request of this id has not ended yet")
        opening = frames.frame(frames.Open(self._next_handle, submit))
        frame_max = min(self._limits.max_frame_bytes, self.welcome.max_frame_bytes)
        size = frames.payload_bytes(opening)
        if size > frame_max:
            cause = f"the prompt makes a frame of {size} bytes; the limit is {frame_max}"
            return End(Finish.REFUSED, cause=cause)
        if unsent_bytes + size > self._limits.max_unsent_bytes:
            return End(Finish.FAILED, cause="the engine does not read its prompts fast enough")
        self._requests[self._next_handle] = _Request(submit.request_id, sink)
        self._sinks[self._next_handle] = sink
        self._handles[submit.request_id] = self._next_handle
        self._next_handle += 1
        self._output.append(opening)
        return None

    def cancel(self, request_id: str, now: float) -> None:
        """Stops the tokens of a request now and asks the engine for its end."""
        handle = self._handles.get(request_id)
        if handle is None or handle in self._cancelled_until:
            return
        del self._sinks[handle]
        self._cancelled_until[handle] = now + self._limits.lost_after_s
        self._output.append(frames.frame(frames.Cancel(handle)))

    def receive(self, data: bytes, now: float) -> None:
        """Takes bytes of the engine and calls the sinks; a bad frame closes the connection."""
        self._liveness.heard(now)
        try:
            for message in self._reader.feed(data):
                if self.phase is Phase.CLOSED:  # by a sink, or by the last message
                    return
                self._take(message, now)
        except frames.FrameError as error:
            self.close(f"the engine sent {error}")

    def tick(self, now: float) -> None:
        """Sends a heartbeat if one is due, closes a lost connection. Call it every heartbeat."""
        if self.phase is Phase.CLOSED:
            return
        lapse = self._liveness.lapse(now)
        if lapse is None and self.phase is Phase.HELLO and now >= self._welcome_by:
            lapse = f"the engine did not say welcome within {self._limits.connect_s:g} s"
        if lapse is not None:
            self.close(lapse)
            return
        while self._cancelled_until:
            handle, until = next(iter(self._cancelled_until.items()))
            if now < until:
                break
            cause = f"the engine did not answer a cancel within {self._limits.lost_after_s:g} s"
            self._end(handle, End(Finish.LOST, cause=cause))
        # closed by the sink of an end just given, perhaps
        if self.phase is Phase.OPEN and self._liveness.beat_due(now) and not self._liveness.paused:
            self._output.append(frames.frame(frames.Pulse()))

    def drain(self, drain_s: float) -> None:
        """Asks the rank to drain; nothing happens if the channel is not open."""
        if self.phase is Phase.OPEN:
            self._output.append(frames.frame(frames.Pulse(drain_s)))

    def say(self, word: Word) -> None:
        """Tells the rank's other gateways; nothing happens if the channel is not open."""
        if self.phase is Phase.OPEN:
            self._output.append(frames.frame(frames.Pulse(word=word)))

    def look(self) -> None:
        """Asks for the rank's vitals; nothing happens if the channel is not open."""
        if self.phase is Phase.OPEN:
            self._output.append(frames.frame(frames.Pulse(look=True)))

    def pause(self, now: float) -> None:
        """The write buffer is full."""
        self._liveness.pause(now)

    def resume(self) -> None:
        """The write buffer has room again."""
        self._liveness.resume()

    def close(self, cause: str, *, died: bool = False) -> None:
        """Ends every open request with LOST, in the order of their submits; for good. `died`: the
        engine's process has ended, as far as one can see.
        """
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self.cause = cause
        self._output.clear()
        end = End(Finish.LOST, cause=cause, died=died)
        for handle in list(self._requests):
            self._end(handle, end)

    def _take(self, message: frames.FromEngine, now: float) -> None:
        if self.phase is Phase.HELLO and not isinstance(message, frames.Welcome | frames.Refuse):
            raise frames.FrameError("a frame before its welcome")
        match message:
            case frames.Tokens():
                self._take_tokens(message)
            case frames.Ended():
                self._end(message.handle, message.end)
            case frames.Beat():
                self._on_beat(message, now)
            case frames.Welcome():
                self._take_welcome(message)
            case frames.Refuse():
                self.close(message.cause)
            case _:
                assert_never(message)

    def _take_tokens(self, step: frames.Tokens) -> None:
        """The hot path."""
        if len(step.handles) != len(step.ids):
            raise frames.FrameError("a token frame whose arrays differ in length")
        sinks = self._sinks
        if step.logprobs:
            self._take_logprobs(step)
            return
        for handle, ids in zip(step.handles, step.ids, strict=True):
            sink = sinks.get(handle)
            if sink is not None and ids:
                sink.on_tokens(ids)

    def _take_logprobs(self, step: frames.Tokens) -> None:
        if len(step.logprobs) != len(step.handles) or any(
            logprobs and len(logprobs) != len(ids)
            for ids, logprobs in zip(step.ids, step.logprobs, strict=False)
        ):
            raise frames.FrameError("a token frame whose logprobs differ from its ids in length")
        for handle, ids, logprobs in zip(step.handles, step.ids, step.logprobs, strict=True):
            sink = self._sinks.get(handle)
            if sink is not None and ids:
                sink.on_tokens(ids, logprobs)

    def _take_welcome(self, welcome: frames.Welcome) -> None:
        if self.phase is not Phase.HELLO:
            raise frames.FrameError("a second welcome")
        if welcome.engine_id != self._caller.engine_id:
            raise frames.FrameError(f"the welcome of another engine, {welcome.engine_id}")
        self.welcome = welcome
        self.phase = Phase.OPEN

    def _end(self, handle: int, end: End) -> None:
        request = self._requests.pop(handle, None)
        if request is None:  # its cancel was given up before
            return
        # All is forgotten before the sink is called: it may submit the same id again.
        self._sinks.pop(handle, None)
        self._cancelled_until.pop(handle, None)
        del self._handles[request.request_id]
        request.sink.on_end(end)
