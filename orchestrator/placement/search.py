"""The best fleet: exact, without looking at those that bounds rule out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchestrator.perf import Array
from orchestrator.placement.asked import Asked, Objective
from orchestrator.placement.candidates import Candidates, candidates
from orchestrator.placement.fleets import Fleet, Index, fleet_rates, predict_fleets, within
from orchestrator.placement.shapes import Shape

# Values so near to each other count as equal: predictions are not as exact as that by far.
TIE = 0.01
_AT_ONCE = 64
_LEAST = 1e-9  # requests a second: rates are above 0
_RUNNERS_UP = 6


class Rank(NamedTuple):
    """What is compared, first to last; less is better."""

    first: float
    second: float
    crews: int
    effort: int
    exact: float
    name: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """A fleet that keeps the SLO, and what is predicted of it.

    TTFT and ITL are those at `rate`: what was asked for; without that `rate_most`, or, where the
    objective is latency, that of one request after another.
    """

    fleet: Fleet
    rank: Rank
    rate: float  # requests a second
    rate_most: float  # within the SLO
    ttft_s: float
    itl_s: float
    decode_batch: float  # sequences of a rank that decodes, at `rate`
    batch_most: float  # at `rate_most`
    prefill_load: float  # share of what prefill could do, at `rate`
    prefill_load_most: float  # and at `rate_most`


def search(asked: Asked, legal: Sequence[Shape]) -> tuple[Forecast, ...]:
    """The best fleet and after it the best of other kinds; empty if none keeps the SLO.

    The first is the least by `Rank` of all fleets of `legal` shapes that the nodes could hold.
    """
    modes = tuple(candidates(asked, legal))
    bounds = [_bounds(asked, mode) for mode in modes]
    best: list[Forecast] = []
    for mode, of_mode in zip(modes, bounds, strict=True):
        best += _best(asked, mode, of_mode, best[0].rank if best else None)
        best.sort(key=lambda forecast: forecast.rank)
        del best[1:]
    if not best:
        return ()
    others = [
        forecast
        for mode, of_mode in zip(modes, bounds, strict=True)
        for forecast in _by_kind(asked, mode, of_mode)
    ]
    others.sort(key=lambda forecast: forecast.rank)
    kinds = {best[0].fleet.kind}
    for other in others:
        if len(best) <= _RUNNERS_UP and other.fleet.kind not in kinds:
            kinds.add(other.fleet.kind)
            best.append(other)
    return tuple(best)


def forecasts(asked: Asked, fleets: Sequence[Fleet]) -> list[Forecast]:
    """Of those fleets, all of one mode, that keep the SLO at the rate asked for."""
    if not fleets:
        return []
    predict = predict_fleets(asked, fleets)
    most = fleet_rates(asked, fleets)
    rates = most if asked.rate is None else np.full(len(fleets), asked.rate)
    if asked.objective is Objective.LATENCY and asked.rate is None:
        seen = predict_fleets(asked, fleets, closed=True)(np.ones((len(fleets), 1)))
        rates = seen.request_rate[:, 0]
    else:
        seen = predict(np.maximum(rates, _LEAST)[:, None])
    full = predict(np.maximum(most, _LEAST)[:, None])
    kept = within(asked.slo, seen)[:, 0] & (most > 0)
    found = []
    for at in np.nonzero(kept)[0]:
        ttft_s, itl_s = float(seen.ttft_s[at, 0]), float(seen.tpot_s[at, 0])
        delay_s = ttft_s + itl_s * max(asked.workload.output_tokens.mean - 1, 1.0)
        fleet = fleets[at]
        found.append(
            Forecast(
                fleet,
                _rank(asked, fleet, float(most[at]), delay_s),
                float(rates[at]),
                float(most[at]),
                ttft_s,
                itl_s,
                float(seen.decode_batch[at, 0]),
                float(full.decode_batch[at, 0]),
                float(seen.prefill_load[at, 0]),
                float(full.prefill_load[at, 0]),
            )
        )
    return found


def _rank(asked: Asked, fleet: Fleet, most: float, delay_s: float) -> Rank:
    values = (np.array(value) for value in (float(fleet.gpus), most, delay_s))
    first, second, exact = (float(value) for value in _values(asked, *values))
    effort = sum(crew.shape.effort for crew in fleet.crews)
    return Rank(first, second, len(fleet.crews), effort, exact, fleet.name)


def _values(asked: Asked, gpus: Array, most: Array, delay_s: Array) -> tuple[Array, Array, Array]:
    """What is to be least, what decides where that is as good as equal, and the former exactly."""
    with np.errstate(divide="ignore"):
        slowness = 1 / most
    match asked.objective:
        case Objective.COST if asked.rate is None:  # every GPU is paid for
            return _tied(slowness), gpus, slowness
        case Objective.THROUGHPUT:
            return _tied(slowness), gpus, slowness
        case Objective.LATENCY:
            return _tied(delay_s), gpus, delay_s
        case Objective.COST | Objective.GPUS:
            return gpus, _tied(slowness), gpus


def _tied(values: Array) -> Array:
    """Whole numbers that are the same for values within TIE of each other, or nearly so."""
    with np.errstate(divide="ignore"):
        tied: Array = np.round(np.log(values) / TIE)
    return tied


class Bounds(NamedTuple):
    """The least that the first two of a rank could be, and indices of what is not ruled out, the
    least of them first.
    """

    first: Array
    second: Array
    order: Index


def _best(asked: Asked, mode: Candidates, bounds: Bounds, limit: Rank | None) -> list[Forecast]:
    """The best of a mode, if it is better than `limit`."""
    found: list[Forecast] = []
    at = 0
    order = bounds.order
    while at < len(order):
        least = (bounds.first[order[at]], bounds.second[order[at]])
        if limit is not None and least > (limit.first, limit.second):
            break
        chunk = order[at : at + _AT_ONCE]
        found += forecasts(asked, [mode.fleet(int(index)) for index in chunk])
        if found:
            found = [min(found, key=lambda forecast: forecast.rank)]
            limit = found[0].rank if limit is None else min(limit, found[0].rank)
        at += _AT_ONCE
    return found


def _bounds(asked: Asked, mode: Candidates) -> Bounds:
    gpus, most, delay = mode.gpus.astype(float), mode.rate_most, mode.delay_least
    enough = (most > 0) if asked.rate is None else (most >= asked.rate)
    if asked.slo.ttft_s is not None:
        enough &= np.isfinite(delay)
    first, second, _ = _values(asked, gpus, most, delay)
    enough &= np.isfinite(first)
    own = np.nonzero(enough)[0]
    return Bounds(first, second, own[np.lexsort((second[own], first[own]))])


def _by_kind(asked: Asked, mode: Candidates, bounds: Bounds) -> list[Forecast]:
    """For the kinds of fleet that promise most, the one of each that does."""
    _, firsts = np.unique(mode.kinds[bounds.order], return_index=True)
    chosen = np.sort(firsts)[: 2 * _RUNNERS_UP]
    return forecasts(asked, [mode.fleet(int(index)) for index in bounds.order[chosen]])
