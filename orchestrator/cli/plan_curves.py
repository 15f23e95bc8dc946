"""What a plan and its runners-up do as the load grows: the points of the report's charts."""

from dataclasses import dataclass

import numpy as np

from orchestrator.cli.plan_report import Report
from orchestrator.placement import Forecast, predict_fleets

_POINTS = 48
_CURVES = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """One fleet from almost no load to all it carries, without regard to the SLO."""

    forecast: Forecast
    rates: list[float]  # requests a second
    ttft_s: list[float]
    itl_s: list[float]


def curves(report: Report) -> list[Curve]:
    """Of the plan first, then of the best runners-up."""
    plan = report.plan
    return [_curve(report, forecast) for forecast in (plan.chosen, *plan.runners_up[: _CURVES - 1])]


def _curve(report: Report, forecast: Forecast) -> Curve:
    asked = report.plan.asked
    fleets = [forecast.fleet]
    full = predict_fleets(asked, fleets, closed=True)(np.array([[1e9]])).request_rate[0, 0]
    # From one request alone; densest at the end, where latency turns up.
    rates = full * 0.999 * np.sin(np.linspace(0.0, 1.0, _POINTS) ** 2 * np.pi / 2)
    rates[0] = full * 1e-6
    seen = predict_fleets(asked, fleets)(rates[None, :])
    kept = np.logical_not(seen.saturated[0])
    return Curve(
        forecast,
        rates[kept].tolist(),
        seen.ttft_s[0][kept].tolist(),
        seen.tpot_s[0][kept].tolist(),
    )
