"""The charts of a load test's report."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from loadtest.reading import Point
from loadtest.result import Latency
from orchestrator.cli.load_report import LoadReport, Money
from orchestrator.cli.svg import Chart, Line, Mark, Points, chart

_BEYOND = 1.6  # of the knee: where charts end; what is further is only worse
_DRAWN = 80


def attainment(report: LoadReport) -> str:
    """Share of requests in the SLO: windows, the fit, the knee with its interval."""
    slo, knee = report.result.slo, report.knee
    right = _right(report)
    seen = [
        (window.offered_per_s, window.good / window.due * 100)
        for point in report.served
        for window in point.windows
        if window.offered_per_s <= right
    ]
    lowest = min((share for _, share in seen), default=0.0)
    # Near 100 % is where it is decided: far misses would press that into a line.
    floor = max(0.0, min(100 - (1 - slo.share) * 100 * 8, 99.0)) if lowest > 0 else 0.0
    lines = [Line("SLO", [(0, slo.share * 100), (right, slo.share * 100)], "slo")]
    marks: list[Mark] = []
    span = None
    if knee is not None:
        loads = [right * (at + 1) / _DRAWN for at in range(_DRAWN)]
        fitted = [(load, knee.attainment(load, slo.share) * 100) for load in loads]
        lines.append(Line("fit", [(x, y) for x, y in fitted if y >= floor], "s1"))
        marks.append(Mark(knee.per_s, slo.share * 100, ""))
        marks.append(Mark(knee.per_s, 0.0, f"{knee.per_s:.3g} requests/s", upright=True))
        span = (knee.low_per_s, min(knee.high_per_s, right))
    lines.append(Line("windows", [(x, max(y, floor)) for x, y in seen], "s0", dots=True))
    return chart(
        Chart(
            "requests/s offered",
            "% of requests in the SLO",
            lines,
            marks,
            width=960,
            height=340,
            x_most=right,
            y_least=floor,
            y_most=100 + (100 - floor) * 0.06,
            span=span,
        )
    )


def ttft(report: LoadReport) -> str:
    """Median and P99."""
    series = [
        ("median", "s0", _quantiles(Latency.TTFT, 0.5)),
        ("p99", "s1", _quantiles(Latency.TTFT, 0.99)),
    ]
    return _latency(report, "TTFT, s", series, report.result.slo.ttft_s, 1.0, log_y=True)


def token_times(report: LoadReport) -> str:
    """Of both phases, median and P99."""
    series = [
        ("thoughts, median", "s0", _quantiles(Latency.TPOT_THINKING, 0.5)),
        ("thoughts, p99", "s1", _quantiles(Latency.TPOT_THINKING, 0.99)),
        ("answers, median", "s2", _quantiles(Latency.TPOT_ANSWER, 0.5)),
        ("answers, p99", "s3", _quantiles(Latency.TPOT_ANSWER, 0.99)),
    ]
    return _latency(report, "TPOT, ms", series, report.result.slo.itl_s, 1e3, log_y=False)


Measure = Callable[[Point], float]


def _quantiles(kind: Latency, share: float) -> Measure:
    return lambda point: point.latencies[kind].quantile(share)


def _latency(
    report: LoadReport,
    title: str,
    series: Sequence[tuple[str, str, Measure]],
    bound: float | None,
    factor: float,
    *,
    log_y: bool,
) -> str:
    right = _right(report)
    lines = []
    for name, style, measure in series:
        found = [
            (point.per_s, measure(point) * factor)
            for point in report.served
            if measure(point) > 0 and point.per_s <= right
        ]
        if found:
            lines.append(Line(name, found, style))
    if not lines:
        return "<p class='none'>No stream had this phase.</p>"
    if bound is not None:
        lines.append(Line("SLO", [(0, bound * factor), (right, bound * factor)], "slo"))
    lines.reverse()
    top = max(y for line in lines for _, y in line.points) * (1.6 if log_y else 1.15)
    asked = Chart("requests/s", title, lines, _knee(report), 470, 280, log_y=log_y, x_most=right)
    return chart(replace(asked, y_most=top))  # room for the knee's word above the SLO's line


def goodput(report: LoadReport) -> str:
    """Offered, ended and within the SLO."""
    right = _right(report)
    shown = [point for point in report.served if point.per_s <= right]
    lines = [
        Line("offered", [(0.0, 0.0), (right, right)], "s4"),
        Line("ended", [(p.per_s, p.ended / p.seconds) for p in shown], "s2"),
        Line("within the SLO", [(p.per_s, p.goodput_per_s) for p in shown], "s0"),
    ]
    return chart(
        Chart(
            "requests/s offered",
            "requests/s",
            lines,
            _knee(report),
            470,
            280,
            x_most=right,
            y_most=right,
        )
    )


def utilisation(report: LoadReport, names: Sequence[tuple[str, str]]) -> str:
    """Per cent, of the server's own metrics."""
    right = _right(report)
    lines = []
    for at, (metric, name) in enumerate(names):
        found: Points = [
            (point.per_s, value * 100)
            for point in report.served
            if point.per_s <= right and (value := point.server(metric)) is not None
        ]
        if found:
            lines.append(Line(name, found, f"s{at}"))
    return chart(
        Chart("requests/s", "%", lines, _knee(report), 470, 280, x_most=right, y_most=100.0)
    )


def cost(report: LoadReport, money: Money) -> str:
    """US dollars a million tokens."""
    right = _right(report)
    shown = [
        (point.per_s, money.per_million(point))
        for point in report.served
        if point.per_s <= right and point.tokens_per_s > 0
    ]
    if not shown:
        return "<p class='none'>No tokens were counted.</p>"
    lines = [Line("cost", shown, "s0")]
    return chart(
        Chart(
            "requests/s",
            "US dollars a million tokens",
            lines,
            _knee(report),
            960,
            280,
            log_y=True,
            x_most=right,
        )
    )


def plan_ttft(report: LoadReport) -> str:
    """Means, s."""
    pairs = [(one.per_s, one.ttft_s, one.ttft_s_predicted) for one in report.compared]
    return _against(report, "TTFT, s", pairs)


def plan_token(report: LoadReport) -> str:
    """Means, ms."""
    pairs = [(one.per_s, one.tpot_s * 1e3, one.tpot_s_predicted * 1e3) for one in report.compared]
    return _against(report, "ms a token", pairs)


def _against(report: LoadReport, title: str, pairs: Sequence[tuple[float, float, float]]) -> str:
    right = _right(report)
    shown = [pair for pair in pairs if pair[0] <= right and math.isfinite(pair[2])]
    if not shown:
        return "<p class='none'>None of the loads that are shown is predicted.</p>"
    lines = [
        Line("predicted", [(x, predicted) for x, _, predicted in shown], "s1"),
        Line("measured", [(x, measured) for x, measured, _ in shown], "s0"),
    ]
    top = max(max(measured, predicted) for _, measured, predicted in shown) * 1.15
    return chart(Chart("requests/s", title, lines, (), 470, 260, x_most=right, y_most=top))


def _right(report: LoadReport) -> float:
    most = max((point.per_s for point in report.served), default=1.0) * 1.05
    if report.knee is None:
        return most
    return min(most, report.knee.per_s * _BEYOND)


def _knee(report: LoadReport) -> list[Mark]:
    if report.knee is None:
        return []
    return [Mark(report.knee.per_s, 0.0, "knee", upright=True)]
