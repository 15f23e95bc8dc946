"""Fleets of gangs under the load and the SLO that were asked for, many at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.perf import (
    Array,
    ClosedLoop,
    LayoutGrid,
    OpenLoop,
    Prediction,
    Traffic,
    disaggregated,
    unified,
)
from orchestrator.placement.asked import Asked, Slo
from orchestrator.placement.legality import grid_of
from orchestrator.placement.shapes import Shape

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]
Predict = Callable[[Array], Prediction]  # rates [fleets, loads] -> arrays of that shape

LONE = ClosedLoop(1.0)  # one request, over and over
ENOUGH = 1_024  # gangs: more than any fleet has, so never the bottleneck
FULL = ClosedLoop(1e9)  # requests that fill every batch
_BLOCK = 512  # fleets, times the loads tried side by side
_FACTORS = 16  # loads tried side by side
_ROUNDS = 4  # of narrowing: to a relative 2^-1 / 16^3
_BOUND_ROUNDS = 3


class Crew(NamedTuple):
    """So many gangs of one shape."""

    shape: Shape
    gangs: int

    @property
    def gpus(self) -> int:
        """Of all of them."""
        return self.shape.gpus * self.gangs


@dataclass(frozen=True, slots=True)
class Fleet:
    """What serves the model: one crew that does both, or one that prefills and one that decodes."""

    crews: tuple[Crew, ...]

    @property
    def gpus(self) -> int:
        """Of all crews."""
        return sum(crew.gpus for crew in self.crews)

    @property
    def name(self) -> str:
        """Unique among fleets, and always the same."""
        return " | ".join(f"{c.gangs} x {c.shape.role} {c.shape.name}" for c in self.crews)

    @property
    def kind(self) -> str:
        """The roles and parallel axes."""
        return " | ".join(f"{crew.shape.role} {crew.shape.kind}" for crew in self.crews)


def traffic_of(asked: Asked) -> Traffic:
    """The workload as the step-time model takes it."""
    workload = asked.workload
    return Traffic(
        input_tokens=workload.input_tokens.mean,
        output_tokens=workload.output_tokens.mean,
        prefix_hit=workload.prefix_hit,
        decode_context_tokens=workload.decode_context_tokens,
    )


class Pool:
    """Legal shapes of one role and KV format as arrays."""

    def __init__(self, asked: Asked, shapes: Sequence[Shape]) -> None:
        """There must be at least one shape."""
        self.shapes = tuple(shapes)
        self.grid: LayoutGrid = grid_of(asked, shapes)
        self.gpus = np.array([shape.gpus for shape in shapes])
        self.nodes = np.array([shape.nodes for shape in shapes])
        self.drafts = np.array([shape.layout.mtp_drafts > 0 for shape in shapes])
        kinds = sorted({shape.kind for shape in shapes})
        self.kinds = np.array([kinds.index(shape.kind) for shape in shapes])


def within(slo: Slo, seen: Prediction) -> Flags:
    """Where the load is carried and the SLO kept."""
    kept = np.logical_not(seen.saturated)
    if slo.ttft_s is not None:
        kept = np.logical_and(kept, seen.ttft_s <= slo.ttft_s)
    if slo.itl_s is not None:
        kept = np.logical_and(kept, seen.tpot_s <= slo.itl_s)
    return kept


def largest_rate(
    predict: Predict, most: Array, slo: Slo, rounds: int = _ROUNDS
) -> tuple[Array, Array]:
    """For each of [fleets] two rates, at most `most`, between which the SLO ceases to hold.

    The lower is 0 where it never holds. Predictions must not get better with more load.
    """
    low, high = np.zeros_like(most), most * (1 + 1e-9)
    first = 2.0 ** np.arange(1 - _FACTORS, 1)
    even = np.arange(1, _FACTORS + 1) / _FACTORS
    for number in range(rounds):
        steps = first if number == 0 else even
        rates = low[:, None] + (high - low)[:, None] * steps
        kept = np.cumprod(within(slo, predict(rates)), axis=1).astype(bool)
        count = kept.sum(axis=1)
        edges = np.concatenate([low[:, None], rates, high[:, None]], axis=1)
        rows = np.arange(len(low))
        low, high = edges[rows, count], edges[rows, np.minimum(count + 1, _FACTORS)]
    return low, high


# --- one crew that does both ---------------------------------------------------------------------


def unified_rates(pool: Pool, traffic: Traffic, slo: Slo) -> Array:
    """At least the requests a second that one gang of each shape carries within the SLO.

    Unified gangs share nothing: `n` of them carry `n` times as many.
    """

    def bound(block: Index) -> Array:
        grid = pool.grid.take(block)
        column = grid.column()
        full = unified(grid, 1, traffic, FULL).request_rate
        return _bound(lambda rates: unified(column, 1, traffic, OpenLoop(rates)), full, slo)

    return in_blocks(len(pool.shapes), bound, _BLOCK)


# --- prefill and decode apart --------------------------------------------------------------------


def decode_rates(prefill: Pool, decode: Pool, traffic: Traffic, slo: Slo) -> Array:
    """At least the requests a second that one decode gang of each shape carries within the bound on
    ITL, if its prompts come from enough prefill gangs; no fleet gets more out of it.
    """

    def bound(block: Index) -> Array:
        partner = prefill.grid.take(np.zeros(len(block), dtype=np.intp))
        grid = decode.grid.take(block)
        columns = partner.column(), grid.column()
        full = disaggregated(partner, ENOUGH, grid, 1, traffic, FULL).request_rate

        def predict(rates: Array) -> Prediction:
            return disaggregated(columns[0], ENOUGH, columns[1], 1, traffic, OpenLoop(rates))

        return _bound(predict, full, Slo(itl_s=slo.itl_s))

    return in_blocks(len(decode.shapes), bound, _BLOCK)


def prefill_rates(
    prefill: Pool, at: Index, gangs: Array, decode: Pool, traffic: Traffic, slo: Slo
) -> Array:
    """At least the requests a second that `gangs` gangs of the shapes `at` carry within the bound
    on TTFT, if the first token comes from the fastest decode gang there is; no fleet gets more out
    of them.
    """
    fastest = quickest(prefill, decode, traffic, 1)

    def bound(block: Index) -> Array:
        grid, many = prefill.grid.take(at[block]), gangs[block]
        probe = disaggregated(grid, many, fastest, ENOUGH, traffic, OpenLoop(1e-6))
        full = probe.request_rate / probe.prefill_load
        if slo.ttft_s is None:
            return full
        column, second = grid.column(), many[:, None]

        def predict(rates: Array) -> Prediction:
            return disaggregated(column, second, fastest, ENOUGH, traffic, OpenLoop(rates))

        return _bound(predict, full, Slo(ttft_s=slo.ttft_s))

    return in_blocks(len(at), bound, _BLOCK)


def in_blocks(count: int, evaluate: Callable[[Index], Array], size: int = 8_192) -> Array:
    """What `evaluate` gives for the indices up to `count`, some at a time: arrays that fit the
    processor's cache are several times faster than those that do not.
    """
    blocks = [np.arange(at, min(at + size, count)) for at in range(0, count, size)]
    return np.concatenate([evaluate(block) for block in blocks] or [np.zeros(0)])


def _bound(predict: Predict, most: Array, slo: Slo) -> Array:
    """Rates at which the SLO does not hold; 0 where it never does."""
    low, high = largest_rate(predict, most, slo, _BOUND_ROUNDS)
    return np.where(low > 0, high, 0.0)


def quickest(prefill: Pool, decode: Pool, traffic: Traffic, times: int) -> LayoutGrid:
    """The decode shape whose first step is the shortest, `times` times."""
    any_prefill = prefill.grid.take(np.zeros(len(decode.shapes), dtype=np.intp))
    lone = disaggregated(any_prefill, ENOUGH, decode.grid, 1, traffic, LONE)
    return decode.grid.take(np.full(times, np.argmin(lone.ttft_s), dtype=np.intp))


# --- any fleets ----------------------------------------------------------------------------------


def predict_fleets(asked: Asked, fleets: Sequence[Fleet], *, closed: bool = False) -> Predict:
    """From rates of shape [fleets, loads], or from numbers of requests in the system if `closed`,
    to what the fleets, all of the same mode, do under them.
    """
    load = ClosedLoop if closed else OpenLoop
    traffic = traffic_of(asked)
    columns = []
    for place in range(len(fleets[0].crews)):
        crews = [fleet.crews[place] for fleet in fleets]
        grid = grid_of(asked, [crew.shape for crew in crews]).column()
        columns.append((grid, np.array([[float(crew.gangs)] for crew in crews])))
    if len(columns) == 1:
        [(grid, gangs)] = columns
        return lambda loads: unified(grid, gangs, traffic, load(loads))
    [(first, first_gangs), (second, second_gangs)] = columns
    return lambda loads: disaggregated(
        first, first_gangs, second, second_gangs, traffic, load(loads)
    )


def fleet_rates(asked: Asked, fleets: Sequence[Fleet]) -> Array:
    """Requests a second that each fleet carries within the SLO; all fleets of the same mode."""
    predict = predict_fleets(asked, fleets)
    full = predict_fleets(asked, fleets, closed=True)(np.full((len(fleets), 1), FULL.concurrency))
    return largest_rate(predict, full.request_rate[:, 0], asked.slo)[0]
