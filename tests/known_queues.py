"""Exact queues of known capacity, which a search is let loose on: events, not formulas."""

import heapq
import math
import random
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loadtest.capacity import Limits, Search, Step
from loadtest.result import Bottleneck, Capacity, Counts, Slice, Slo, Tokens, Window

Array = NDArray[np.float64]
Kept = NDArray[np.bool_]
_NOTHING = Counts(0, 0.0, 0.0, {})
_SLICES = 12


class Queue(Protocol):
    """What serves: the state goes on from step to step unless it is drained."""

    def waits(self, per_s: float, seconds: float, *, drain: bool) -> tuple[Array, Array]:
        """Arrivals of a Poisson process from 0 to `seconds`, and how long each waits."""


class DeterministicQueue:
    """M/D/k: customers go to the servers in turn, so that each server is an own recursion."""

    def __init__(self, servers: int, service_s: float, seed: int) -> None:
        self._service_s = service_s
        self._free_s = np.zeros(servers)
        self._draw = np.random.default_rng(seed)

    def waits(self, per_s: float, seconds: float, *, drain: bool) -> tuple[Array, Array]:
        """See `Queue`."""
        free_s = np.zeros_like(self._free_s) if drain else np.sort(self._free_s)
        arrivals = np.sort(self._draw.uniform(0, seconds, self._draw.poisson(per_s * seconds)))
        waits = np.zeros_like(arrivals)
        for server in range(len(free_s)):
            own = arrivals[server :: len(free_s)]
            if not len(own):
                continue
            slack = own - np.arange(len(own)) * self._service_s
            wait = np.maximum(np.maximum.accumulate(slack), free_s[server]) - slack
            waits[server :: len(free_s)] = wait
            free_s[server] = own[-1] + wait[-1] + self._service_s
        self._free_s = np.maximum(free_s - seconds, 0.0)
        return arrivals, waits


class GeneralQueue:
    """M/G/k: the next customer goes to the server that is free first."""

    def __init__(self, servers: int, service_s: Callable[[], float], seed: int) -> None:
        self._service_s = service_s
        self._free_s = [0.0] * servers
        self._draw = random.Random(seed)

    def waits(self, per_s: float, seconds: float, *, drain: bool) -> tuple[Array, Array]:
        """See `Queue`."""
        if drain:
            self._free_s = [0.0] * len(self._free_s)
        heap, arrivals, waits = self._free_s, [], []
        heapq.heapify(heap)
        at = self._draw.expovariate(per_s)
        while at < seconds:
            start = max(at, heap[0])
            heapq.heapreplace(heap, start + self._service_s())
            arrivals.append(at)
            waits.append(start - at)
            at += self._draw.expovariate(per_s)
        self._free_s = [max(free - seconds, 0.0) for free in heap]
        return np.array(arrivals), np.array(waits)


def window_of(step: Step, kept: Kept, at: Array, bottleneck: Bottleneck) -> Window:
    """Of requests that were due at `at` after the settling, of which `kept` kept the SLO."""
    places = np.minimum((at / step.duration_s * _SLICES).astype(int), _SLICES - 1)
    due = np.bincount(places, minlength=_SLICES)
    good = np.bincount(places, weights=kept, minlength=_SLICES).astype(int)
    return Window(
        offered_per_s=step.per_s,
        begin_s=0.0,
        end_s=step.duration_s,
        due=len(at),
        ended=len(at),
        good=int(kept.sum()),
        errors={},
        latencies={},
        tokens=Tokens(),
        slices=[Slice(int(d), int(g)) for d, g in zip(due, good, strict=True)],
        concurrency=0.0,
        lag=_NOTHING,
        late=_NOTHING,
        bottleneck=bottleneck,
    )


def searched(
    queue: Queue,
    slo: Slo,
    *,
    start_per_s: float | None = None,
    limits: Limits | None = None,
    generator_per_s: float = math.inf,
) -> tuple[Capacity, list[Window]]:
    """A whole search; above `generator_per_s` the generator is the bottleneck."""
    assert slo.ttft_s is not None
    search = Search(slo, start_per_s, limits)
    windows: list[Window] = []
    while isinstance(step := search.next(), Step):
        at, waits = queue.waits(step.per_s, step.settle_s + step.duration_s, drain=step.drain)
        seen = at >= step.settle_s
        bound = step.per_s > generator_per_s
        bottleneck = Bottleneck.GENERATOR if bound else Bottleneck.NONE
        kept = waits[seen] <= slo.ttft_s
        windows.append(window_of(step, kept, at[seen] - step.settle_s, bottleneck))
        search.note(windows[-1])
    return step, windows


def erlang_capacity(servers: int, service_s: float, bound_s: float, share: float) -> float:
    """The rate at which `share` of an M/M/k queue's customers wait no longer than the bound: the
    wait is exponential behind Erlang's chance to wait at all.
    """
    low, high = 1e-9, servers / service_s * (1 - 1e-9)
    for _ in range(80):
        middle = (low + high) / 2
        offered = middle * service_s
        blocked = 1.0
        for k in range(1, servers + 1):
            blocked = offered * blocked / (k + offered * blocked)
        chance = blocked / (1 - offered / servers * (1 - blocked))
        missed = chance * math.exp(-(servers / service_s - middle) * bound_s)
        low, high = (middle, high) if missed <= 1 - share else (low, middle)
    return low


def deterministic_capacity(
    servers: int, service_s: float, bound_s: float, share: float, customers: int = 2_000_000
) -> float:
    """The same of an M/D/k queue, by as many customers with the same draws at each rate."""
    draw = np.random.default_rng(99)
    gaps = np.cumsum(draw.exponential(1.0, customers))
    low, high = 0.0, servers / service_s
    for _ in range(14):
        middle = (low + high) / 2
        at = gaps / middle
        waits = np.zeros(customers)
        for server in range(servers):
            slack = at[server::servers] - np.arange(len(at[server::servers])) * service_s
            waits[server::servers] = np.maximum.accumulate(slack) - slack
        missed = float((waits[customers // 20 :] > bound_s).mean())
        low, high = (middle, high) if missed <= 1 - share else (low, middle)
    return low
