"""Who is served now, who waits, who is refused: a bounded first-in first-out queue.

`Admission` has one way in, `on(event)`; the host does what the decisions say. An admitted request
holds a slot until `Left`. At every moment: slots held <= capacity, waiting <= queue_requests_max.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from orchestrator.core import Request, RequestId


class Reason(StrEnum):
    """Why a request was admitted, queued or shed."""

    SLOT_FREE = "slot_free"
    NO_SLOT = "no_slot"  # every slot is held; waits
    QUEUE_FULL = "queue_full"
    DEADLINE_PASSED = "deadline_passed"  # waited until its answer was worthless


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request came in."""

    request: Request


@dataclass(frozen=True, slots=True)
class Left:
    """A request ended, or its client went away, admitted or still waiting."""

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Capacity:
    """The fleet can now hold so many requests of this gateway; may be below what it holds."""

    slots: int


@dataclass(frozen=True, slots=True)
class Passed:
    """Time has passed: waiting requests may have missed their deadline."""


Event = Arrived | Left | Capacity | Passed


@dataclass(frozen=True, slots=True)
class Admit:
    """Serve it now."""

    request_id: RequestId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Queue:
    """It waits; `ahead` requests will be admitted before it."""

    request_id: RequestId
    ahead: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse it; a retry after `retry_after_s` may be admitted."""

    request_id: RequestId
    retry_after_s: int
    reason: Reason


Decision = Admit | Queue | Shed

RETRY_AFTER_S = 5  # a slot's usual life is longer; a client that comes back sooner waits in vain


class Admission:
    """A bounded queue in front of a bounded number of slots; state machine without I/O."""

    def __init__(self, queue_requests_max: int) -> None:
        self._queue_max = queue_requests_max
        self._slots = 0
        self._held: set[RequestId] = set()
        self._waiting: OrderedDict[RequestId, Request] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Requests admitted and not yet left."""
        return len(self._held)

    def on(self, event: Event, now: float) -> list[Decision]:
        """What follows from the event, in the order it is to be done; deadlines are kept first."""
        decisions: list[Decision] = list(self._expire(now))
        match event:
            case Arrived(request):
                decisions += self._arrive(request)
            case Left(request_id):
                self._held.discard(request_id)
                self._waiting.pop(request_id, None)
            case Capacity(slots):
                self._slots = slots
            case Passed():
                pass
            case _:
                assert_never(event)
        decisions += self._fill()
        return decisions

    def _arrive(self, request: Request) -> list[Decision]:
        request_id = request.request_id
        assert request_id not in self._held
        assert request_id not in self._waiting
        if len(self._held) < self._slots and not self._waiting:
            self._held.add(request_id)
            return [Admit(request_id, Reason.SLOT_FREE)]
        if len(self._waiting) >= self._queue_max:
            return [Shed(request_id, RETRY_AFTER_S, Reason.QUEUE_FULL)]
        self._waiting[request_id] = request
        return [Queue(request_id, len(self._waiting) - 1, Reason.NO_SLOT)]

    def _fill(self) -> list[Decision]:
        admitted: list[Decision] = []
        while self._waiting and len(self._held) < self._slots:
            request_id, _ = self._waiting.popitem(last=False)
            self._held.add(request_id)
            admitted.append(Admit(request_id, Reason.SLOT_FREE))
        return admitted

    def _expire(self, now: float) -> list[Shed]:
        late = [r.request_id for r in self._waiting.values() if r.deadline <= now]
        for request_id in late:
            del self._waiting[request_id]
        return [Shed(request_id, RETRY_AFTER_S, Reason.DEADLINE_PASSED) for request_id in late]
