"""Requests at their instants: a process of mean rate 1, its time bent to the rates of a shape.

What a process is like, gaps that come in bursts or a trace's own minutes, stays what it is: a shape
changes how fast its time passes, as a renewal process is made to follow a rate.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from loadtest.shapes import Passage, Shape
from orchestrator.core import SpecError
from orchestrator.workload import TraceRequest, Workload, drawn_requests

Draw = Callable[[str], random.Random]


@dataclass(frozen=True, slots=True)
class Trace:
    """All requests of a trace, in order, from second 0 on."""

    name: str
    requests: Sequence[TraceRequest]

    @property
    def per_s(self) -> float:
        """Its own mean rate: a pass through it ends as long behind its last request as two are
        apart on average.
        """
        return (len(self.requests) - 1) / self.requests[-1].at_s

    def unit(self, first: int = 0) -> Iterator[TraceRequest]:
        """From its request number `first` on and round and round, in units of its mean gap.

        Nothing of a pass repeats the text of another: a cache must not be better for a trace that
        is too short.
        """
        per_s, size = self.per_s, len(self.requests)
        begin = self._unit(first, per_s, size)
        at = first
        while True:
            turn, number = divmod(at, size)
            request = self.requests[number]
            hash_ids = request.hash_ids
            if turn and hash_ids:
                hash_ids = tuple(each + turn * _PASS for each in hash_ids)
            at_unit = self._unit(at, per_s, size) - begin
            yield request._replace(at_s=at_unit, hash_ids=hash_ids)
            at += 1

    def _unit(self, at: int, per_s: float, size: int) -> float:
        turn, number = divmod(at, size)
        return turn * size + self.requests[number].at_s * per_s


_PASS = 1 << 48  # above the hash ids of traces


def whole_trace(requests: Iterator[TraceRequest], name: str, limit: int | None) -> Trace:
    """Reads it to its end, or to the limit; raises SpecError where a line is broken."""
    ordered = sorted(islice(requests, limit), key=lambda request: request.at_s)
    if len(ordered) < 2 or ordered[-1].at_s <= ordered[0].at_s:
        raise SpecError(
            f"{name}: fewer than two requests that are apart in time", "give a longer trace"
        )
    first_s = ordered[0].at_s
    return Trace(name, [request._replace(at_s=request.at_s - first_s) for request in ordered])


def drawn_unit(workload: Workload, draw: Draw) -> Iterator[TraceRequest]:
    """Endless requests of a workload at a mean rate of 1, with its gaps' variation."""
    return drawn_requests(workload, draw, 1.0)


def bent(unit: Iterator[TraceRequest], shape: Shape) -> Iterator[TraceRequest]:
    """The requests of a process of mean rate 1 at the instants that a shape gives them."""
    passage = Passage(shape)
    for request in unit:
        yield request._replace(at_s=passage.instant(request.at_s))
