"""What is to happen when: the generator's clock is its host's, real or virtual."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Host(Protocol):
    """Keeps the time, in seconds from the start of the run."""

    def now(self) -> float:
        """The instant that it is."""
        ...

    def call_at(self, at_s: float, do: Callable[[], None]) -> None:
        """Calls `do`, which must not wait, once the instant has come."""
        ...


class Agenda:
    """Calls in the order of their instants; those of one instant in the order they came."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def add(self, at_s: float, do: Callable[[], None]) -> None:
        """One more."""
        heapq.heappush(self._calls, (at_s, next(self._number), do))

    @property
    def next_at(self) -> float | None:
        """The first instant; None of nothing."""
        return self._calls[0][0] if self._calls else None

    def pop(self) -> Callable[[], None]:
        """Takes the first call out."""
        return heapq.heappop(self._calls)[2]


class VirtualHost:
    """Time passes as fast as the calls can be made."""

    def __init__(self) -> None:
        self._agenda = Agenda()
        self._now = 0.0

    def now(self) -> float:
        """The instant of the call that is under way."""
        return self._now

    def call_at(self, at_s: float, do: Callable[[], None]) -> None:
        """An instant that has passed is now."""
        self._agenda.add(max(at_s, self._now), do)

    def run(self, done: Callable[[], bool]) -> None:
        """Until `done`, or until there is nothing more to happen."""
        while not done() and (at_s := self._agenda.next_at) is not None:
            self._now = at_s
            self._agenda.pop()()
