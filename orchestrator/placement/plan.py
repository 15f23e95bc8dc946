"""The plan: the best fleet, where it runs, what is predicted of it, and why not another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.perf import Band, Extrapolated, Mode, error_band, ledger
from orchestrator.placement import cost
from orchestrator.placement.asked import Asked, Objective
from orchestrator.placement.bundles import Impossible
from orchestrator.placement.fleets import Crew
from orchestrator.placement.legality import grid_of, judge
from orchestrator.placement.nearest import best_possible
from orchestrator.placement.nodes import PlacedGang, place
from orchestrator.placement.pools import pools_of
from orchestrator.placement.reasons import Reason, Violation
from orchestrator.placement.search import Forecast, search
from orchestrator.placement.shapes import Shape, shapes


@dataclass(frozen=True, slots=True)
class Bands:
    """How wrong each number may be."""

    rate: Band | Extrapolated
    ttft: Band | Extrapolated
    itl: Band | Extrapolated


@dataclass(frozen=True, slots=True)
class Refusal:
    """A shape that is not legal."""

    shape: Shape
    violation: Violation


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `ledgers` has each crew's bytes of a GPU by component; KV takes the rest."""

    asked: Asked
    chosen: Forecast
    runners_up: tuple[Forecast, ...]
    refused: tuple[Refusal, ...]
    legal: tuple[Shape, ...]
    gangs: tuple[PlacedGang, ...]  # `pool` is the index of the crew
    ledgers: tuple[dict[str, float], ...]
    bands: Bands


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why there is none, with the value nearest to what was asked for."""

    violation: Violation
    nearest: str


def plan(asked: Asked) -> Plan | NoPlan:
    """The best fleet for what was asked, or what stands in its way; deterministic."""
    every = shapes(asked)
    verdicts = judge(asked, every)
    legal = [shape for shape, verdict in zip(every, verdicts, strict=True) if verdict is None]
    refused = tuple(
        Refusal(shape, verdict)
        for shape, verdict in zip(every, verdicts, strict=True)
        if verdict is not None
    )
    if not legal:
        return _nothing_fits(asked, refused)
    found = search(asked, legal)
    if not found:
        return _nothing_keeps_it(asked, legal)
    for at, forecast in enumerate(found):
        gangs = place(pools_of(asked, forecast), asked.nodes)
        if not isinstance(gangs, Impossible):
            rest = (*found[:at], *found[at + 1 :])
            return Plan(
                asked,
                forecast,
                rest,
                refused,
                tuple(legal),
                gangs,
                tuple(_ledger(asked, crew) for crew in forecast.fleet.crews),
                bands(asked, forecast),
            )
    same = [node for node in asked.nodes if node.gpus == asked.gpus_per_node]
    return plan(replace(asked, nodes=tuple(same)))  # without the nodes that are unlike the others


def bands(asked: Asked, forecast: Forecast) -> Bands:
    """The error bands of a forecast's rate, TTFT and ITL."""
    crews = forecast.fleet.crews
    mode = Mode.UNIFIED if len(crews) == 1 else Mode.DISAGGREGATED
    stages = max(crew.shape.nodes if crew.shape.layout.pp > 1 else 1 for crew in crews)
    context = asked.workload.input_tokens.mean + asked.workload.output_tokens.mean
    rate, ttft, itl = (
        error_band(
            asked.gpu,
            asked.engine,
            mode,
            metric,
            context_tokens=context,
            pipeline_nodes=stages,
            model=asked.model,
        )
        for metric in ("rate", "ttft", "tpot")
    )
    return Bands(rate, ttft, itl)


def paid_gpus(asked: Asked, forecast: Forecast) -> int:
    """The fleet's; or all, where no rate says how many requests the others could be spared for."""
    return asked.gpus if asked.rate is None else forecast.fleet.gpus


def mean_rate(asked: Asked, forecast: Forecast) -> float:
    """Requests a second that the GPUs are paid for: those that come on average, or all they can."""
    arrivals = asked.workload.arrivals
    return forecast.rate_most if arrivals is None else arrivals.requests_per_s


def dollars_per_million(asked: Asked, forecast: Forecast) -> float | None:
    """Of a million tokens, input and output alike; None without a price."""
    price, workload = asked.gpu_price_per_hour, asked.workload
    if price is None:
        return None
    tokens = workload.input_tokens.mean + workload.output_tokens.mean
    gpus = paid_gpus(asked, forecast)
    return cost.per_million(gpus, price, mean_rate(asked, forecast) * tokens)


def _ledger(asked: Asked, crew: Crew) -> dict[str, float]:
    book = ledger(grid_of(asked, [crew.shape]))
    return {name: float(column[0]) for name, column in book.components.items()}


def _nothing_fits(asked: Asked, refused: Sequence[Refusal]) -> NoPlan:
    """The refusal that more GPUs, or other GPUs, would lift most easily."""
    of_memory = [r for r in refused if r.violation.reason in (Reason.MEMORY, Reason.KV_ROOM)]
    widest = max(
        of_memory or refused, key=lambda r: (r.shape.gpus, r.shape.layout.ep, r.shape.name)
    )
    return NoPlan(
        widest.violation,
        f"{asked.model.name} fits no layout of {asked.gpus} x {asked.gpu.name}; the nearest is "
        f"{widest.shape.name}: {widest.violation.why}",
    )


def _nothing_keeps_it(asked: Asked, legal: Sequence[Shape]) -> NoPlan:
    """What the SLO or the rate would have to be."""
    best = best_possible(asked, legal)
    slo = asked.slo
    if slo.itl_s is not None and best.itl_s > slo.itl_s:
        return NoPlan(
            Violation(Reason.ITL, f"no layout has an ITL of {slo.itl_s * 1e3:g} ms"),
            f"with these GPUs the best ITL is {best.itl_s * 1e3:.1f} ms",
        )
    if slo.ttft_s is not None and best.ttft_s > slo.ttft_s:
        return NoPlan(
            Violation(Reason.TTFT, f"no layout has a TTFT of {slo.ttft_s:g} s"),
            f"with these GPUs the best TTFT is {best.ttft_s:.2f} s",
        )
    if slo.ttft_s is not None and best.ttft_within_itl_s > slo.ttft_s:
        return NoPlan(
            Violation(Reason.TTFT, f"no layout has both a TTFT of {slo.ttft_s:g} s and that ITL"),
            f"with these GPUs the best TTFT within that ITL is {best.ttft_within_itl_s:.2f} s",
        )
    unbounded = replace(
        asked,
        workload=replace(asked.workload, arrivals=None),
        objective=Objective.THROUGHPUT,
    )
    most = max((found.rate_most for found in search(unbounded, legal)), default=0.0)
    wanted = "any load" if asked.rate is None else f"{asked.rate:g} requests/s"
    return NoPlan(
        Violation(Reason.RATE, f"no fleet carries {wanted} within the SLO"),
        f"these {asked.gpus} GPUs carry at most {most:.2f} requests/s within it",
    )
