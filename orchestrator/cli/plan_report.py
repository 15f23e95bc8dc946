"""What every format of a plan shows, computed once."""

from dataclasses import dataclass

from orchestrator.perf import Band, Extrapolated
from orchestrator.placement import (
    Forecast,
    Plan,
    Refusal,
    WhatIf,
    dollars_per_million,
    mean_rate,
    outdone,
    per_day,
    reasons_for,
    what_ifs,
)

_BURSTY = 1.2


@dataclass(frozen=True, slots=True)
class Report:
    """A plan with its explanations; `refused` has legal layouts too if they were asked for."""

    plan: Plan
    command: str  # that makes it again
    explained: bool
    what_ifs: tuple[WhatIf, ...]
    reasons: tuple[str, ...]
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...]


def report_on(plan: Plan, command: str, *, explain: bool) -> Report:
    """The report; with `explain` it says of legal layouts too why they are not the plan."""
    others = what_ifs(plan)
    return Report(
        plan,
        command,
        explain,
        others,
        reasons_for(plan, others),
        (*plan.refused, *(outdone(plan) if explain else ())),
        tuple(_notes(plan)),
    )


def _notes(plan: Plan) -> list[str]:
    asked, fleet = plan.asked, plan.chosen.fleet
    notes = ["SLO bounds and predictions are means over requests; nothing here was measured."]
    arrivals = asked.workload.arrivals
    if arrivals is not None and arrivals.gap_cv > _BURSTY:
        notes.append(
            f"Requests come in bursts: their gaps vary by {arrivals.gap_cv:.1f} times the mean, "
            "those of the predictions by 1.0 (Poisson). TTFT will be longer at times."
        )
    if (left := asked.gpus - fleet.gpus) > 0:
        notes.append(f"{left} of {asked.gpus} GPUs are left free.")
    if asked.gpu_price_per_hour is None:
        notes.append("No price of a GPU-hour is known: give --price for the cost.")
    return notes


def band_text(band: Band | Extrapolated) -> str:
    """The error band in a few characters."""
    return f"±{band.p90:.0%}" if isinstance(band, Band) else "extrapolated"


def band_source(band: Band | Extrapolated) -> str:
    """Where the band is from."""
    if isinstance(band, Band):
        return f"P90 of {band.rows} validated rows, {band.group}"
    return band.reason


def tokens_per_s(plan: Plan, forecast: Forecast) -> float:
    """Input and output, at the rate that the GPUs are paid for."""
    workload = plan.asked.workload
    tokens = workload.input_tokens.mean + workload.output_tokens.mean
    return mean_rate(plan.asked, forecast) * tokens


def money(plan: Plan, forecast: Forecast) -> tuple[float, float, float] | None:
    """US dollars for a million tokens, for a million output tokens, and a day; None: no price."""
    each = dollars_per_million(plan.asked, forecast)
    price, workload = plan.asked.gpu_price_per_hour, plan.asked.workload
    if each is None or price is None:
        return None
    tokens = workload.input_tokens.mean + workload.output_tokens.mean
    return (
        each,
        each * tokens / workload.output_tokens.mean,
        per_day(forecast.fleet.gpus, price),
    )
