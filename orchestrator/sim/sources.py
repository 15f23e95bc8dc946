"""Where simulated requests come from: at their own instants, or one when another has ended."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from orchestrator.sim.call import Call

if TYPE_CHECKING:
    from orchestrator.sim.world import World


class OpenLoop:
    """Calls at their own instants, in order, whatever the fleet does; read one at a time."""

    def __init__(self, calls: Iterator[Call]) -> None:
        self._calls = calls
        self._next: Call | None = None
        self._origin_s = 0.0
        self.exhausted = False

    def start(self, world: "World") -> None:
        """From now on; the first call's instant is counted from now."""
        self._origin_s = world.agenda.now
        self._await(world)

    def ended(self, call: Call, world: "World") -> None:
        """Changes nothing."""

    def _await(self, world: "World") -> None:
        call = next(self._calls, None)
        if call is None:
            self.exhausted = True
            return
        when = max(world.agenda.now, self._origin_s + call.at_s)

        def send(now: float) -> None:
            self._await(world)
            world.send(call)

        world.agenda.at(when, send)


class ClosedLoop:
    """So many at a time: when one ends, the next begins, until `total` have."""

    def __init__(self, make: Callable[[int], Call], concurrency: int, total: int) -> None:
        self._make = make
        self._concurrency = concurrency
        self._total = total
        self._begun = 0

    @property
    def exhausted(self) -> bool:
        """Whether no more will come."""
        return self._begun >= self._total

    def start(self, world: "World") -> None:
        """All that may be in flight at once, at once."""
        for _ in range(min(self._concurrency, self._total)):
            self._send(world)

    def ended(self, call: Call, world: "World") -> None:
        """The next one, soon."""
        if self._begun < self._total:
            self._begun += 1
            fresh = self._make(self._begun - 1)
            world.agenda.soon(lambda: world.send(fresh))

    def _send(self, world: "World") -> None:
        self._begun += 1
        world.send(self._make(self._begun - 1))
