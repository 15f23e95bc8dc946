"""What is to happen in virtual time, in order; equal instants in the order they were asked for."""

import heapq
from collections.abc import Callable

Action = Callable[[float], None]


class Agenda:
    """A heap of actions. Time moves only in `run` and never goes back."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._asked = 0
        self.now = 0.0

    def at(self, when: float, action: Action) -> None:
        """The action will be called with `when`, which is not in the past."""
        assert when >= self.now, "time never goes back"
        self._asked += 1
        heapq.heappush(self._heap, (when, self._asked, action))

    def run(self) -> None:
        """Does everything, and what that adds, until nothing is left."""
        while self._heap:
            self.now, _, action = heapq.heappop(self._heap)
            action(self.now)
