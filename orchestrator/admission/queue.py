"""Who is served now, who waits, who is refused: bounded lines in front of counted credits.

`Admission` has one way in, `on(event)`; the host does what the decisions say. An admitted request
holds a slot until `Left`: a credit of a rank that decodes, so that no backlog builds up in the
engines. At every moment: slots held <= capacity, waiting <= queue_requests_max.
"""

import heapq
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, assert_never

from orchestrator.admission.drain import Drain
from orchestrator.admission.lines import Line, Lines, Waiting
from orchestrator.core import Request, RequestId
from orchestrator.spec import AdmissionSpec


class Reason(StrEnum):
    """Why a request was admitted, queued or shed."""

    SLOT_FREE = "slot_free"
    NO_SLOT = "no_slot"  # every slot is held; waits
    QUEUE_FULL = "queue_full"
    CLASS_FULL = "class_full"  # as many of its class wait as may
    TENANT_FULL = "tenant_full"  # as many of its tenant wait as may
    DISPLACED = "displaced"  # the queue is full, and another had a better right to its place
    WAIT_TOO_LONG = "wait_too_long"  # it would not have begun in time
    DEADLINE_PASSED = "deadline_passed"  # waited until its answer was worthless


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request came in; `work_s` is what it is predicted to cost, 0 if nobody knows."""

    request: Request
    work_s: float = 0.0


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

    word: ClassVar[str] = "admit"
    request_id: RequestId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Queue:
    """It waits; `ahead` requests of its class and of higher ones wait too."""

    word: ClassVar[str] = "queue"
    request_id: RequestId
    ahead: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse it; a retry after `retry_after_s` finds what waits now begun, as predicted."""

    word: ClassVar[str] = "shed"
    request_id: RequestId
    retry_after_s: int
    reason: Reason


Decision = Admit | Queue | Shed

RETRY_AFTER_S = 5  # where nothing can be predicted: nobody has left yet
RETRY_AFTER_S_MAX = 600  # predictions of more are of a fleet that stands still
_WORK_MIN_S = 1e-6  # fairness without prices counts requests


class Admission:
    """Bounded lines in front of a bounded number of slots; state machine without I/O."""

    def __init__(self, spec: AdmissionSpec) -> None:
        self._spec = spec
        self._slots = 0
        self._held: dict[RequestId, float] = {}  # predicted work
        self._waiting: dict[RequestId, Waiting] = {}
        self._deadlines: list[tuple[float, int, RequestId]] = []
        self._lines = Lines(spec.classes, self._waiting)
        self._drain = Drain()
        self._arrivals = 0

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
            case Arrived(request, work_s):
                decisions += self._arrive(request, max(work_s, _WORK_MIN_S), now)
            case Left(request_id):
                work = self._held.pop(request_id, None)
                if work is not None:
                    self._drain.ended(work, now)
                elif request_id in self._waiting:
                    self._take(request_id)
            case Capacity(slots):
                self._slots = slots
            case Passed():
                pass
            case _:
                assert_never(event)
        decisions += self._fill()
        return decisions

    # --- arrivals ------------------------------------------------------------------------------

    def _arrive(self, request: Request, work_s: float, now: float) -> list[Decision]:
        request_id = request.request_id
        assert request_id not in self._held
        assert request_id not in self._waiting
        line = self._lines.of(request.klass)
        if len(self._held) < self._slots and not self._waiting:
            line.charge(request.tenant, work_s)
            self._held[request_id] = work_s
            return [Admit(request_id, Reason.SLOT_FREE)]
        if (reason := self._refusal(line, request, work_s, now)) is not None:
            return [self._shed(request_id, line, request.tenant, reason, now)]
        decisions: list[Decision] = []
        if len(self._waiting) >= self._spec.queue_requests_max:
            victim = self._victim(line, request.tenant)
            if victim is None:
                return [self._shed(request_id, line, request.tenant, Reason.QUEUE_FULL, now)]
            gone = self._take(victim)
            of = self._lines.of(gone.request.klass)
            decisions.append(self._shed(victim, of, gone.request.tenant, Reason.DISPLACED, now))
        self._arrivals += 1
        self._waiting[request_id] = waiting = Waiting(request, work_s, self._arrivals)
        line.put(waiting)
        heapq.heappush(self._deadlines, (request.deadline, waiting.number, request_id))
        ahead = sum(
            each.requests for each in self._lines if each.spec.priority >= line.spec.priority
        )
        return [*decisions, Queue(request_id, ahead - 1, Reason.NO_SLOT)]

    def _refusal(self, line: Line, request: Request, work_s: float, now: float) -> Reason | None:
        """Why the request may not even wait."""
        most = self._spec.tenant_requests_max
        own = sum(each.of(request.tenant)[0] for each in self._lines)
        if most is not None and own >= most:
            return Reason.TENANT_FULL
        if line.spec.queue_requests_max is not None and (
            line.requests >= line.spec.queue_requests_max
        ):
            return Reason.CLASS_FULL
        wait_s = self._wait_s(line, request.tenant, work_s, now)
        allowed_s = request.deadline - now
        own_s = self._spec.wait_s if line.spec.wait_s is None else line.spec.wait_s
        if own_s is not None:
            allowed_s = min(allowed_s, own_s)
        if wait_s is not None and wait_s > allowed_s:
            return Reason.WAIT_TOO_LONG
        return None

    def _wait_s(self, line: Line, tenant: str, work_s: float, now: float) -> float | None:
        """How long a request of the tenant would wait behind what waits now, as predicted: behind
        all of the higher classes, and behind a fair share of its own.
        """
        higher_s = sum(
            each.work_s
            for each in self._lines
            if each is not line and each.spec.priority >= line.spec.priority
        )
        requests, own_s = line.of(tenant)
        shares = line.tenants + (requests == 0)
        fair_s = min(line.work_s, (own_s + work_s) * shares)
        return self._drain.wait_s(higher_s + fair_s, now)

    def _victim(self, line: Line, tenant: str) -> RequestId | None:
        """Whose place in a full queue a newcomer of the tenant takes: one of a lower class, or of a
        tenant with more in the queue. None: its own.
        """
        lowest = self._lines.lowest()
        if lowest is None or lowest.spec.priority > line.spec.priority:
            return None
        name, requests = lowest.busiest()
        same = lowest.spec.priority == line.spec.priority
        if same and requests <= line.of(tenant)[0] + 1:
            return None
        return lowest.last(name)

    def _shed(
        self, request_id: RequestId, line: Line, tenant: str, reason: Reason, now: float
    ) -> Shed:
        wait_s = self._wait_s(line, tenant, 0.0, now)
        if wait_s is None:
            return Shed(request_id, RETRY_AFTER_S, reason)
        return Shed(request_id, min(RETRY_AFTER_S_MAX, max(1, math.ceil(wait_s))), reason)

    # --- who waits -----------------------------------------------------------------------------

    def _take(self, request_id: RequestId) -> Waiting:
        """Out of its line, whatever becomes of it."""
        waiting = self._waiting.pop(request_id)
        self._lines.of(waiting.request.klass).taken(waiting)
        if len(self._deadlines) > 2 * len(self._waiting) + 64:
            self._deadlines = [each for each in self._deadlines if self._waits(each)]
            heapq.heapify(self._deadlines)
        return waiting

    def _waits(self, entry: tuple[float, int, RequestId]) -> bool:
        found = self._waiting.get(entry[2])
        return found is not None and found.number == entry[1]

    def _fill(self) -> list[Decision]:
        admitted: list[Decision] = []
        while len(self._held) < self._slots and (line := self._lines.first()) is not None:
            request_id = line.next()
            waiting = self._take(request_id)
            line.charge(waiting.request.tenant, waiting.work_s)
            self._held[request_id] = waiting.work_s
            admitted.append(Admit(request_id, Reason.SLOT_FREE))
        return admitted

    def _expire(self, now: float) -> list[Shed]:
        late: list[Shed] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heapq.heappop(self._deadlines)
            if not self._waits(entry):
                continue
            request = self._take(entry[2]).request
            line = self._lines.of(request.klass)
            late.append(self._shed(entry[2], line, request.tenant, Reason.DEADLINE_PASSED, now))
        return late
