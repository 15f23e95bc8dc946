"""Who waits, and in which order: classes by priority, tenants by fair shares, then by deadline.

Fair is virtual time: each tenant's next request starts where its last one ended, in predicted work,
or where the class is now if the tenant has not waited; the earliest start goes first.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core import Request, RequestId
from orchestrator.spec import ClassSpec

_DEAD_KEPT = 16  # entries of requests that are gone, before a heap is made anew
_TENANTS_KEPT = 1_024  # virtual times that are kept before old ones are looked for


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request that waits, priced by predicted work."""

    request: Request
    work_s: float
    number: int  # in the order of arrival


Alive = Mapping[RequestId, Waiting]  # everything that waits; a line's heaps hold more


@dataclass(slots=True)
class _Tenant:
    heap: list[tuple[float, int, RequestId]] = field(default_factory=list)  # by deadline
    requests: int = 0
    work_s: float = 0.0


class Line:
    """What waits of one class."""

    def __init__(self, spec: ClassSpec, alive: Alive) -> None:
        self.spec = spec
        self._alive = alive
        self.requests = 0
        self.work_s = 0.0
        self._tenants: dict[str, _Tenant] = {}  # that wait
        self._ends: dict[str, float] = {}  # virtual, of each tenant's last request
        self._now = 0.0  # virtual

    @property
    def tenants(self) -> int:
        """How many of them wait."""
        return len(self._tenants)

    def of(self, tenant: str) -> tuple[int, float]:
        """Requests and predicted work of a tenant that wait."""
        found = self._tenants.get(tenant)
        return (0, 0.0) if found is None else (found.requests, found.work_s)

    def busiest(self) -> tuple[str, int]:
        """The tenant with the most requests that wait, of several the first by name."""
        name = min(self._tenants, key=lambda each: (-self._tenants[each].requests, each))
        return name, self._tenants[name].requests

    def put(self, waiting: Waiting) -> None:
        """It waits from now on."""
        request = waiting.request
        tenant = self._tenants.setdefault(request.tenant, _Tenant())
        heapq.heappush(tenant.heap, (request.deadline, waiting.number, request.request_id))
        tenant.requests += 1
        tenant.work_s += waiting.work_s
        self.requests += 1
        self.work_s += waiting.work_s

    def taken(self, waiting: Waiting) -> None:
        """It waits no longer, whatever became of it."""
        name = waiting.request.tenant
        tenant = self._tenants[name]
        tenant.requests -= 1
        tenant.work_s -= waiting.work_s
        self.requests -= 1
        self.work_s = self.work_s - waiting.work_s if self.requests else 0.0
        if not tenant.requests:
            del self._tenants[name]
        elif len(tenant.heap) > 2 * tenant.requests + _DEAD_KEPT:
            tenant.heap = [each for each in tenant.heap if _is(self._alive, each)]
            heapq.heapify(tenant.heap)

    def next(self) -> RequestId:
        """Whose turn it is; somebody waits."""
        name = min(self._tenants, key=lambda each: (self._starts(each), each))
        heap = self._tenants[name].heap
        while not _is(self._alive, heap[0]):
            heapq.heappop(heap)
        return heap[0][2]

    def last(self, tenant: str) -> RequestId:
        """The tenant's request with the latest deadline."""
        return max(each for each in self._tenants[tenant].heap if _is(self._alive, each))[2]

    def charge(self, tenant: str, work_s: float) -> None:
        """The tenant's request has been admitted."""
        self._now = max(self._now, self._starts(tenant))
        self._ends[tenant] = self._now + work_s
        if len(self._ends) > _TENANTS_KEPT:
            self._ends = {
                name: end
                for name, end in self._ends.items()
                if end > self._now or name in self._tenants
            }

    def _starts(self, tenant: str) -> float:
        return max(self._now, self._ends.get(tenant, 0.0))


def _is(alive: Alive, entry: tuple[float, int, RequestId]) -> bool:
    found = alive.get(entry[2])
    return found is not None and found.number == entry[1]


class Lines:
    """The lines of all classes, those of the highest priority first."""

    def __init__(self, classes: tuple[ClassSpec, ...], alive: Alive) -> None:
        """Requests of a class that has no name here are of the class without a name."""
        known = {each.name: each for each in (ClassSpec(""), *classes)}
        ordered = sorted(known.values(), key=lambda each: (-each.priority, each.name))
        self._lines = {each.name: Line(each, alive) for each in ordered}

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def of(self, klass: str) -> Line:
        """The line that a request of the class waits in."""
        return self._lines.get(klass) or self._lines[""]

    def first(self) -> Line | None:
        """The line whose turn it is."""
        return next((line for line in self._lines.values() if line.requests), None)

    def lowest(self) -> Line | None:
        """Of the lines in which somebody waits, the one that matters least."""
        return next((line for line in reversed(self._lines.values()) if line.requests), None)
