"""The load test's own code in virtual time, against a scripted server that answers in bytes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from loadtest.agenda import Host, VirtualHost
from loadtest.engine import Engine
from loadtest.load import Load
from loadtest.meter import WindowMeter
from loadtest.play import Play, Played
from loadtest.stream import StreamReader

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_PIECE = _chunk(
    b'data: {"id":"x","choices":[{"index":0,"delta":{"content":" word","reasoning_content":null},'
    b'"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)


def _end(tokens: int) -> bytes:
    last = (
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":100,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % tokens
    )
    return _chunk(last) + _chunk(b"")


@dataclass(slots=True)
class _Stream:
    reader: StreamReader
    done: Callable[[], None]
    left: int
    clock: Callable[[], float]
    begun: bool = False
    given_up: bool = False


class ScriptedServer:
    """Implements `Server`: `slots` streams at once, each with a token at each step of one clock;
    the others wait in order. From `stall_s[0]` until `stall_s[1]` it takes no step.
    """

    def __init__(
        self,
        host: Host,
        *,
        slots: int,
        step_s: float,
        tokens: int,
        stall_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.served = 0
        self._host = host
        self._slots = slots
        self._step_s = step_s
        self._tokens = tokens
        self._stall_s = stall_s
        self._waiting: deque[_Stream] = deque()
        self._running: list[_Stream] = []
        self._stepping = False

    def send(
        self, body: bytes, reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        """As `Server` has it."""
        return self.send_by(self._host.now, reader, done)

    def send_by(
        self, clock: Callable[[], float], reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        """The same for a reader whose instants are those of another clock."""
        stream = _Stream(reader, done, self._tokens, clock)
        self._waiting.append(stream)
        self._step_soon()

        def give_up() -> None:
            stream.given_up = True

        return give_up

    def _step_soon(self) -> None:
        if self._stepping:
            return
        self._running = [stream for stream in self._running if not stream.given_up]
        while self._waiting and len(self._running) < self._slots:
            stream = self._waiting.popleft()
            if not stream.given_up:
                self._running.append(stream)
        if not self._running:
            return
        self._stepping = True
        now = self._host.now()
        if self._stall_s[0] <= now < self._stall_s[1]:
            now = self._stall_s[1]
        self._host.call_at(now + self._step_s, self._step)

    def _step(self) -> None:
        self._stepping = False
        for stream in self._running:
            if stream.given_up:
                continue
            now = stream.clock()
            if not stream.begun:
                stream.begun = True
                stream.reader.feed(_HEAD, now)
            stream.reader.feed(_PIECE, now)
            stream.left -= 1
            if not stream.left:
                stream.reader.feed(_end(self._tokens), now)
                self.served += 1
                stream.done()
        self._running = [stream for stream in self._running if stream.left]
        self._step_soon()


class ShiftedHost:
    """A host whose second 0 is `begin_s` of another's."""

    def __init__(self, host: Host, begin_s: float) -> None:
        self._host = host
        self._begin_s = begin_s

    def now(self) -> float:
        """As `Host` has it."""
        return self._host.now() - self._begin_s

    def call_at(self, at_s: float, do: Callable[[], None]) -> None:
        """As `Host` has it."""
        self._host.call_at(at_s + self._begin_s, do)


class _OfAPlay:
    """The server as a play's engine sees it, with the play's clock."""

    def __init__(self, server: ScriptedServer, clock: Callable[[], float]) -> None:
        self._server = server
        self._clock = clock

    def send(
        self, body: bytes, reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        """As `Server` has it."""
        return self._server.send_by(self._clock, reader, done)


class VirtualPlayer:
    """Implements `Player` in virtual time."""

    def __init__(self, host: VirtualHost, server: ScriptedServer, load: Load) -> None:
        self._host = host
        self._server = server
        self._load = load
        self._lingering: list[Engine] = []

    def now(self) -> float:
        """As `Player` has it."""
        return self._host.now()

    def wait(self, duration_s: float) -> None:
        """As `Player` has it."""
        over: list[bool] = []
        self._host.call_at(self._host.now() + duration_s, lambda: over.append(True))
        self._host.run(lambda: bool(over))

    def play(self, play: Play) -> Played:
        """As `Player` has it."""
        begin_s = self._host.now()
        host = ShiftedHost(self._host, begin_s)
        asks = self._load.asks(play.shape, play.first)
        if play.count is not None:
            asks = islice(asks, play.count)
        meters = [WindowMeter(span) for span in play.spans]
        server = _OfAPlay(self._server, host.now)
        engine = Engine(host, server, play.slo, play.limits, asks, meters)
        self._lingering.append(engine)
        engine.when_empty(lambda: self._lingering.remove(engine))
        engine.start()
        self._host.run(lambda: engine.ending is not None)
        windows = engine.windows()
        for window in windows:
            window.begin_s += begin_s
            window.end_s += begin_s
        assert engine.ending is not None
        return Played(windows, engine.sent, engine.ending.name.lower())

    @property
    def open_streams(self) -> int:
        """As `Player` has it."""
        return sum(engine.open_streams for engine in self._lingering)

    def give_up(self) -> None:
        """As `Player` has it."""
        for engine in list(self._lingering):
            engine.give_up()

    def stop(self) -> None:
        """As `Player` has it: nobody stops it."""

    def close(self) -> None:
        """As `Player` has it."""
        self.give_up()
