"""Plays with this process alone, on gevent's loop."""

import time
from itertools import islice

import gevent
from gevent.event import Event

from loadtest.connections import Connections
from loadtest.engine import Engine
from loadtest.gevent_host import GeventHost
from loadtest.load import Load
from loadtest.meter import WindowMeter
from loadtest.play import Play, Played
from loadtest.target import Target


class LocalPlayer:
    """Implements `Player`; of `share` (k, n) the k-th of n shares."""

    def __init__(self, target: Target, load: Load) -> None:
        self.share = (0, 1)
        self._began_at = time.monotonic()
        self._target = target
        self._load = load
        self._playing: Engine | None = None
        self._lingering: list[Engine] = []

    def now(self) -> float:
        """As `Player` has it."""
        return time.monotonic() - self._began_at

    def wait(self, duration_s: float) -> None:
        """As `Player` has it."""
        gevent.sleep(duration_s)

    def play(self, play: Play) -> Played:
        """As `Player` has it."""
        return self.play_from(play, time.monotonic(), self.now())

    def play_from(self, play: Play, begin_at: float, offset_s: float) -> Played:
        """The same from an instant of `time.monotonic` on, which the run calls `offset_s`."""
        asks = self._load.asks(play.shape, play.first, self.share)
        if play.count is not None:
            index, shares = self.share
            asks = islice(asks, len(range(index, play.count, shares)))
        host = GeventHost(begin_at)
        connections = Connections(self._target, host.now)
        meters = [WindowMeter(span) for span in play.spans]
        engine = Engine(host, connections, play.slo, play.limits, asks, meters)
        ended = Event()

        def emptied() -> None:
            self._lingering.remove(engine)
            host.close()
            connections.close()

        engine.when_ended(ended.set)
        engine.when_empty(emptied)
        host.watch_lag(engine.lag)
        self._playing = engine
        self._lingering.append(engine)
        engine.start()
        ended.wait()
        self._playing = None
        windows = engine.windows()
        for window in windows:
            window.begin_s += offset_s
            window.end_s += offset_s
        assert engine.ending is not None
        return Played(windows, engine.sent, engine.ending.name.lower())

    @property
    def open_streams(self) -> int:
        """As `Player` has it."""
        return sum(engine.open_streams for engine in self._lingering)

    def stop(self) -> None:
        """As `Player` has it."""
        if self._playing is not None:
            self._playing.stop()

    def give_up(self) -> None:
        """As `Player` has it."""
        for engine in list(self._lingering):
            engine.give_up()

    def close(self) -> None:
        """As `Player` has it."""
        self.stop()
        self.give_up()
