"""What is to happen in virtual time, in order; equal instants in the order they were asked for."""

import heapq
from collections import deque
from collections.abc import Callable

Action = Callable[[float], None]


class Agenda:
    """A heap of actions. Time moves only in `run` and never goes back."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._asked = 0
        self._soon: deque[Callable[[], None]] = deque()
        self.now = 0.0
        self.done = 0  # actions

    def at(self, when: float, action: Action) -> None:
        """The action will be called with `when`, which is not in the past."""
        assert when >= self.now, "time never goes back"
        self._asked += 1
        heapq.heappush(self._heap, (when, self._asked, action))

    def soon(self, action: Callable[[], None]) -> None:
        """The action will be called behind the one that is under way, before time moves on."""
        self._soon.append(action)

    def time(self) -> float:
        """The instant that the action under way is called with."""
        return self.now

    def run(self, after: Callable[[], bool] | None = None) -> None:
        """Does everything, and what that adds, until nothing is left or `after`, which is called
        behind every action, says that it is enough.
        """
        heap, soon = self._heap, self._soon
        while soon:
            soon.popleft()()
        while heap:
            self.now, _, action = heapq.heappop(heap)
            action(self.now)
            while soon:
                soon.popleft()()
            self.done += 1
            if after is not None and after():
                return
