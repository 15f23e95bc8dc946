"""Real time, on gevent's loop, and how late that loop is."""

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from loadtest.agenda import Agenda

LAG_EVERY_S = 0.02


class GeventHost:
    """Implements `Host`; second 0 is `began_at`, an instant of `time.monotonic`."""

    def __init__(self, began_at: float | None = None) -> None:
        self.began_at = time.monotonic() if began_at is None else began_at
        self._agenda = Agenda()
        self._changed = Event()
        self._greenlet = gevent.spawn(self._keep)
        self._monitor: Any = None

    def now(self) -> float:
        """Seconds from the start."""
        return time.monotonic() - self.began_at

    def call_at(self, at_s: float, do: Callable[[], None]) -> None:
        """Calls are made one after another, in a greenlet of their own."""
        before = self._agenda.next_at
        self._agenda.add(at_s, do)
        if before is None or at_s < before:
            self._changed.set()

    def watch_lag(self, tell: Callable[[float], None]) -> None:
        """Tells how late the loop is, at each instant of `LAG_EVERY_S` and so evenly in time: of a
        loop that was held up for a second, as many lags as it missed, from a second down.
        """
        self._monitor = gevent.spawn(self._watch, tell)

    def close(self) -> None:
        """No more calls."""
        self._greenlet.kill(block=False)
        if self._monitor is not None:
            self._monitor.kill(block=False)

    def _keep(self) -> None:
        while True:
            next_at = self._agenda.next_at
            self._changed.clear()
            wait_s = None if next_at is None else next_at - self.now()
            if wait_s is None or wait_s > 0:
                self._changed.wait(wait_s)
                continue
            self._agenda.pop()()

    def _watch(self, tell: Callable[[float], None]) -> None:
        due = self.now()
        while True:
            due += LAG_EVERY_S
            gevent.sleep(max(0.0, due - self.now()))
            while (lag_s := self.now() - due) > LAG_EVERY_S:
                tell(lag_s)
                due += LAG_EVERY_S
            tell(max(0.0, lag_s))
