"""One play of a load, as a process of the generator is told to do it, and what it says back."""

from typing import Protocol

import msgspec

from loadtest.engine import Limits
from loadtest.merge import merged
from loadtest.meter import Span
from loadtest.result import Slo, Window
from loadtest.shapes import Shape


class Play(msgspec.Struct, frozen=True):
    """Requests from number `first` on at the rates of a shape, measured in the spans; all instants
    are seconds from the play's begin. With `count`, so many requests and no more.
    """

    shape: Shape
    spans: list[Span]
    limits: Limits
    slo: Slo
    first: int = 0
    count: int | None = None


class Played(msgspec.Struct, frozen=True):
    """What came of it: one window for each span that was reached."""

    windows: list[Window]
    sent: int
    ending: str


class Player(Protocol):
    """Plays with one process or with many."""

    def now(self) -> float:
        """Seconds of the run."""
        ...

    def wait(self, duration_s: float) -> None:
        """Lets time pass."""
        ...

    def play(self, play: Play) -> Played:
        """Begins now and waits until it has ended; its windows are in seconds of the run."""
        ...

    @property
    def open_streams(self) -> int:
        """Of plays that have ended: their last requests, which nobody measures."""
        ...

    def give_up(self) -> None:
        """Ends those."""
        ...

    def stop(self) -> None:
        """Ends what is played now, with what was measured."""
        ...

    def close(self) -> None:
        """No more plays."""
        ...


def played_together(parts: list[Played]) -> Played:
    """One play of which each part played its share: the windows that all of them have."""
    windows = [{window.begin_s: window for window in part.windows} for part in parts]
    begins = set(windows[0]).intersection(*windows[1:])
    return Played(
        [merged([each[begin_s] for each in windows]) for begin_s in sorted(begins)],
        sum(part.sent for part in parts),
        parts[0].ending,
    )
