"""What every format of a load test's report shows, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.knee import Knee
from loadtest.reading import Point, bounds_text, knee_of, points
from loadtest.result import Capacity, Result, Verdict
from loadtest.sizing import Limit, Need, limit_of, linear, nodes_needed
from orchestrator.cli.figures_text import read_text
from orchestrator.cli.load_plan import PlanAtLoad, PlannedFleet
from orchestrator.core import SpecError
from orchestrator.perf import Factors, read_factors
from orchestrator.placement import per_million

_TOKENS_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is to say beside what the result has; None: the plan's, or the server's."""

    plan: Path | None = None
    factors: Path | None = None
    target_per_s: float | None = None
    nodes: int | None = None
    price: float | None = None  # US dollars a GPU-hour
    gpus: int | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Money:
    """What a GPU costs an hour, in US dollars, and how many there are."""

    price: float
    gpus: float

    def per_million(self, point: Point) -> float:
        """Of a million tokens, input and output alike, at a load that was measured."""
        return per_million(self.gpus, self.price, max(point.tokens_per_s, _TOKENS_LEAST))


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load test, read."""

    result: Result
    asked: Asked
    points: tuple[Point, ...]
    knee: Knee | None
    capacity: Capacity | None  # the search's, or as a shape's windows tell it
    limit: Limit | None
    fleet: PlannedFleet | None
    compared: tuple[PlanAtLoad, ...]
    predicted_per_s: float | None  # most within the SLO, by predicted means
    need: Need | None
    money: Money | None
    rows: tuple[dict[str, object], ...]
    answer: str
    notes: tuple[str, ...]

    @property
    def served(self) -> list[Point]:
        """The points that the server answers for."""
        return [point for point in self.points if not point.generator_bound]


def load_report(result: Result, asked: Asked) -> LoadReport:
    """Raises SpecError where the plan, or what is asked, does not belong to the result."""
    if asked.factors is not None and asked.plan is None:
        raise SpecError("--factors without --plan predicts nothing", "give --plan VALUES too")
    found = points(result.windows)
    factors = read_factors(read_text(asked.factors)) if asked.factors else None
    fleet = _fleet(result, asked, [p for p in found if not p.generator_bound] or found, factors)
    knee = knee_of(result)
    capacity = result.capacity or _capacity_of(knee, found)
    limit = limit_of(found, result.slo)
    compared = tuple(fleet.compare(found)) if fleet else ()
    predicted = fleet.most_per_s(result.slo.ttft_s, result.slo.itl_s) if fleet else None
    need = _need(asked, capacity, fleet, result)
    name = f"{result.workload}, {result.began_at}"
    return LoadReport(
        result,
        asked,
        tuple(found),
        knee,
        capacity,
        limit,
        fleet,
        compared,
        predicted,
        need,
        _money(asked, fleet, found),
        tuple(fleet.rows(found, name)) if fleet else (),
        _answer(result, found, capacity, limit, need),
        tuple(_notes(result, found, capacity)),
    )


def _fleet(
    result: Result, asked: Asked, found: list[Point], factors: Factors | None
) -> PlannedFleet | None:
    return None if asked.plan is None else PlannedFleet(asked.plan, result, found, factors)


def _capacity_of(knee: Knee | None, found: list[Point]) -> Capacity | None:
    """Of a run that was no search."""
    if knee is not None:
        why = "fitted to the windows of a shape: find-capacity is surer"
        return Capacity(Verdict.WIDE, knee.per_s, knee.low_per_s, knee.high_per_s, why)
    return None


def _need(
    asked: Asked, capacity: Capacity | None, fleet: PlannedFleet | None, result: Result
) -> Need | None:
    if asked.target_per_s is None:
        return None
    nodes = asked.nodes or (fleet.nodes if fleet else None)
    if nodes is None:
        raise SpecError(
            "--target needs the nodes of the fleet that was tested", "give --nodes N, or --plan"
        )
    if capacity is None:
        return None
    growth: Callable[[float], float] = linear
    unit, said = 1, ""
    if fleet is not None:
        unit = fleet.unit_nodes
        slo = result.slo
        base = fleet.most_per_s(slo.ttft_s, slo.itl_s)
        if base > 0:

            def growth(times: float) -> float:
                return fleet.most_per_s(slo.ttft_s, slo.itl_s, times) / base

            said = (
                f"gangs are added in the plan's proportion, {unit} node{'s' * (unit > 1)} at a "
                "time, and capacity grows as the plan predicts for such fleets"
            )
    return nodes_needed(
        capacity, nodes, asked.target_per_s, unit_nodes=unit, growth=growth, assumption=said
    )


def _money(asked: Asked, fleet: PlannedFleet | None, found: list[Point]) -> Money | None:
    price, gpus = asked.price, asked.gpus
    if fleet is not None:
        price = fleet.plan.price_per_gpu_hour if price is None else price
        gpus = fleet.plan.gpus if gpus is None else gpus
    told = [point.server("r1_pool_gpus") for point in found]
    costs = [point.server("r1_gpu_hour_price") for point in found]
    seen = gpus or next((value for value in told if value), None)
    paid = price or next((value for value in costs if value), None)
    return None if seen is None or paid is None else Money(paid, seen)


# --- in words ------------------------------------------------------------------------------------


def _answer(
    result: Result,
    found: list[Point],
    capacity: Capacity | None,
    limit: Limit | None,
    need: Need | None,
) -> str:
    share = f"{result.slo.share:.4g}"
    slo = f"{float(share) * 100:g} % of requests within {bounds_text(result.slo)}"
    if all(point.generator_bound for point in found):
        return (
            "This run tells nothing of the server: the generator was late at every load. Give it "
            "more workers, or a machine of its own."
        )
    parts = [_tried(found, result, slo) if capacity is None else _takes(capacity, slo)]
    if limit is not None:
        parts.append(f"What gives way first is {limit.word}.")
    if need is not None:
        between = f" (95 %: {need.low} to {need.high})" if need.low != need.high else ""
        parts.append(f"{need.target_per_s:g} requests/s need {need.nodes} nodes{between}.")
    return " ".join(parts)


def _tried(found: list[Point], result: Result, slo: str) -> str:
    """Of a run whose loads do not lie round a knee."""
    told = [point for point in found if not point.generator_bound]
    held = [point.per_s for point in told if point.attainment >= result.slo.share]
    if held:
        return f"All loads up to {max(held):.3g} requests/s kept {slo}; what more does is not told."
    least = min(point.per_s for point in told)
    return f"No load that was tried kept {slo}, the least {least:.3g} requests/s."


def _takes(capacity: Capacity, slo: str) -> str:
    match capacity.verdict:
        case Verdict.FOUND | Verdict.WIDE:
            high = "more" if capacity.high_per_s is None else f"{capacity.high_per_s:.3g}"
            return (
                f"It takes {capacity.per_s:.3g} requests/s (95 %: {capacity.low_per_s:.3g} to "
                f"{high}) with {slo}."
            )
        case Verdict.AT_LEAST:
            return (
                f"It takes at least {capacity.per_s:.3g} requests/s with {slo}: {capacity.reason}."
            )
        case Verdict.NOTHING_HOLDS:
            return f"It does not keep {slo} at any load that was tried: {capacity.reason}."


def _notes(result: Result, found: list[Point], capacity: Capacity | None) -> list[str]:
    notes = []
    if capacity is not None:
        notes.append(f"The search stopped: {capacity.reason}.")
    if bound := [point for point in found if point.generator_bound]:
        notes.append(
            f"At {', '.join(f'{point.per_s:.3g}' for point in bound)} requests/s the generator was "
            "the bottleneck: those windows count for nothing here."
        )
    asked = sum(point.tokens.asked_prompt for point in found)
    got = sum(point.tokens.prompt for point in found)
    if asked and abs(got / asked - 1) > 0.05:
        notes.append(
            f"Prompts were {got / asked:.2f} times as long as the workload says, by the server's "
            "count."
        )
    if not any(point.tokens.prompt for point in found):
        notes.append("The server reported no usage: tokens are counted by pieces of streams.")
    return notes
