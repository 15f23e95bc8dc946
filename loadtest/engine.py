"""Sends requests when they are due, whatever has been answered, and measures what comes back.

The same code runs on real sockets and in virtual time: the clock and the server are the caller's.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from loadtest.agenda import Host
from loadtest.meter import Part, WindowMeter
from loadtest.record import Record
from loadtest.result import Slo, Window
from loadtest.stream import StreamReader

TICK_S = 0.1  # between two looks at what has run out of time


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: when it is due, and how to make it at that instant."""

    at_s: float
    prompt_tokens: int  # that it should have
    body: Callable[[], bytes]
    # The next turn of its session, from what was answered and when; None where there is none.
    then: "Callable[[StreamReader, float], Ask | None] | None" = None


class Server(Protocol):
    """What is under test."""

    def send(
        self, body: bytes, reader: StreamReader, done: Callable[[], None]
    ) -> Callable[[], None]:
        """Sends a request and feeds what comes to `reader`; calls `done` once, when that is done.

        Returns at once; what it returns gives the request up, after which `done` is not called.
        """
        ...


class Ending(enum.Enum):
    """Why a play ended."""

    MEASURED = enum.auto()  # every request that was due in a window has come to its end
    HOPELESS = enum.auto()  # those that have not have missed their SLO already
    OUT_OF_TIME = enum.auto()  # and they were given up
    STOPPED = enum.auto()  # from outside


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a play; seconds."""

    timeout_s: float  # of one request, from when it is due
    tail_s: float  # behind the last window, for what was due in it
    gives_up: bool = False  # on those that have missed their SLO, behind the last window


@dataclass(slots=True)
class _Open:
    ask: Ask
    record: Record
    reader: StreamReader
    give_up: Callable[[], None]


class Engine:
    """One play: asks in the order of their instants, windows in which they are measured.

    While a window's requests are open the load goes on, as far as there are asks: a server that
    empties is faster than the one that is measured.
    """

    def __init__(
        self,
        host: Host,
        server: Server,
        slo: Slo,
        limits: Limits,
        asks: Iterator[Ask],
        meters: Sequence[WindowMeter],
    ) -> None:
        assert meters
        self.ending: Ending | None = None
        self.sent = 0
        self._host = host
        self._server = server
        self._slo = slo
        self._limits = limits
        self._asks = asks
        self._meters = meters
        self._meter_at = 0  # index of the first window that has not ended
        self._closed = 0  # windows that are over and resolved
        self._end_s = meters[-1].span.end_s
        self._open: dict[int, _Open] = {}
        self._next: Ask | None = None
        self._when_ended: Callable[[], None] = lambda: None
        self._when_empty: Callable[[], None] = lambda: None

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once, when nothing more is sent or measured. Streams may still be open: they
        are load for what is played next.
        """
        self._when_ended = tell

    def when_empty(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once, when it has ended and its last stream too."""
        self._when_empty = tell

    def give_up(self) -> None:
        """Ends the streams that are open behind its end."""
        assert self.ending is not None
        for one in self._open.values():
            one.give_up()
        self._open.clear()
        self._empty()

    def start(self) -> None:
        """From now on calls of the host do it all, until `ending` is set."""
        self._take()
        self._tick()

    def stop(self) -> None:
        """Ends it now; what is open is given up, and counts nowhere."""
        if self.ending is None:
            self._finish(Ending.STOPPED)

    def lag(self, lag_s: float, times: int = 1) -> None:
        """The loop was that late."""
        if (meter := self.meter()) is not None:
            meter.lag.add(lag_s, times)

    def meter(self) -> WindowMeter | None:
        """The window that it is now."""
        now = self._host.now()
        for meter in self._meters[self._meter_at :]:
            if now < meter.span.end_s:
                return meter if now >= meter.span.begin_s else None
            self._meter_at += 1
        return None

    def windows(self) -> list[Window]:
        """What was measured so far."""
        now = self._host.now()
        made = [meter.window(self._slo, now) for meter in self._meters]
        return [window for window in made if window is not None]

    @property
    def open_streams(self) -> int:
        """How many have not come to their end."""
        return len(self._open)

    # --- sending ---------------------------------------------------------------------------------

    def _take(self) -> None:
        self._next = next(self._asks, None)
        if self._next is not None:
            self._host.call_at(self._next.at_s, self._due)

    def _due(self) -> None:
        """Sends all that is due; of a late loop, more than one."""
        if self._next is None:
            return
        now = max(self._host.now(), self._next.at_s)  # the clock may have rounded
        while self.ending is None and self._next is not None and self._next.at_s <= now:
            self._send(self._next)
            self._next = next(self._asks, None)
        if self.ending is None and self._next is not None:
            self._host.call_at(self._next.at_s, self._due)

    def _send(self, ask: Ask) -> None:
        if self.ending is not None:
            return
        now = self._host.now()
        record = Record(self._part(ask.at_s), ask.at_s, ask.prompt_tokens)
        record.sent(now)
        reader = StreamReader(record, keep=ask.then is not None)
        number = self.sent
        self.sent += 1
        give_up = self._server.send(ask.body(), reader, lambda: self._done(number))
        self._open[number] = _Open(ask, record, reader, give_up)
        self._count(now)

    def _part(self, due_at: float) -> Part:
        for meter in self._meters:
            if (part := meter.part(due_at)) is not None:
                return part
        return Part(0.0, 0.0)  # which nobody looks at

    def _done(self, number: int) -> None:
        one = self._open.pop(number)
        reader, now = one.reader, self._host.now()
        if reader.error:
            one.record.fail(reader.error)
        else:
            one.record.end(self._slo, reader.usage, reader.ended_at)
            then = one.ask.then if self.ending is None else None
            if then is not None and (ask := then(reader, now)) is not None:
                self._host.call_at(ask.at_s, lambda: self._send(ask))
        self._count(now)

    def _count(self, now: float) -> None:
        if (meter := self.meter()) is not None:
            meter.streams(len(self._open), now)

    # --- ending ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._host.now()
        self._time_out(now)
        self._count(now)
        if self.ending is None and now >= self._end_s:
            self._look(now)
        while self._closed < len(self._meters):
            meter = self._meters[self._closed]
            if now < meter.span.end_s + TICK_S or not meter.resolved:
                break
            meter.close(self._slo)
            self._closed += 1
        if self.ending is None or self._open:
            self._host.call_at(now + TICK_S, self._tick)
        else:
            self._empty()

    def _look(self, now: float) -> None:
        """Whether what was due in a window has ended, or will be waited for no longer."""
        measured = [one for one in self._open.values() if self._measured(one.record.due_at)]
        if not measured:
            self._finish(Ending.MEASURED)
        elif self._limits.gives_up and all(one.record.hopeless(self._slo, now) for one in measured):
            self._finish(Ending.HOPELESS)
        elif now >= self._end_s + self._limits.tail_s:
            self._finish(Ending.OUT_OF_TIME)

    def _measured(self, due_at: float) -> bool:
        return any(meter.part(due_at) is not None for meter in self._meters)

    def _time_out(self, now: float) -> None:
        """Open ones are in the order of their sending, and all have the same time."""
        while self._open:
            number, one = next(iter(self._open.items()))
            if now < one.record.due_at + self._limits.timeout_s:
                return
            del self._open[number]
            one.give_up()
            one.record.fail("timeout")

    def _finish(self, ending: Ending) -> None:
        now = self._host.now()
        self.ending = ending
        if ending is not Ending.MEASURED:
            for one in self._open.values():
                one.give_up()
                if ending is not Ending.STOPPED:
                    hopeless = one.record.hopeless(self._slo, now)
                    one.record.fail("too_late" if hopeless else "timeout")
            self._open.clear()
        self._count(now)
        self._when_ended()

    def _empty(self) -> None:
        tell, self._when_empty = self._when_empty, lambda: None
        tell()
