"""Plays with this process alone, on gevent's loop."""

from itertools import islice

from gevent.event import Event

from loadtest.connections import Connections
from loadtest.engine import Engine
from loadtest.gevent_host import GeventHost
from loadtest.load import Load
from loadtest.meter import WindowMeter
from loadtest.play import Play, Played
from loadtest.target import Target


class LocalPlayer:
    """Implements `Player`; of `share` (k, n) the k-th of n shares, from an instant given."""

    def __init__(self, target: Target, load: Load, share: tuple[int, int] = (0, 1)) -> None:
        self._target = target
        self._load = load
        self._share = share
        self._engine: Engine | None = None

    def play(self, play: Play, offset_s: float, begin_at: float | None = None) -> Played:
        """As `Player` has it; second 0 is `begin_at` of `time.monotonic`."""
        asks = self._load.asks(play.shape, play.first, self._share)
        if play.count is not None:
            index, shares = self._share
            asks = islice(asks, len(range(index, play.count, shares)))
        host = GeventHost(begin_at)
        connections = Connections(self._target, host.now)
        meters = [WindowMeter(span) for span in play.spans]
        engine = Engine(host, connections, play.slo, play.limits, asks, meters)
        self._engine = engine
        ended = Event()
        engine.when_ended(ended.set)
        host.watch_lag(engine.lag)
        engine.start()
        try:
            ended.wait()
        finally:
            self._engine = None
            host.close()
            connections.close()
        windows = engine.windows()
        for window in windows:
            window.begin_s += offset_s
            window.end_s += offset_s
        assert engine.ending is not None
        return Played(windows, engine.sent, engine.ending.name.lower())

    def stop(self) -> None:
        """As `Player` has it."""
        if self._engine is not None:
            self._engine.stop()

    def close(self) -> None:
        """As `Player` has it: nothing is left."""
