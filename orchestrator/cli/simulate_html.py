"""A simulation as one HTML file: no script, nothing from elsewhere, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from orchestrator.cli.document import card, document, table
from orchestrator.cli.simulate_table import busy, figures, latencies
from orchestrator.cli.svg import Chart, Line, Mark, chart

if TYPE_CHECKING:
    from orchestrator.cli.simulate_run import Result

_NAMED = 2  # faults whose names have room in the chart
_SHARES = (0.5, 0.9, 0.99)


def page(results: Sequence["Result"]) -> str:
    """The whole page."""
    title = "Simulation: " + " against ".join(result.name for result in results)
    body = [f"<h1>{escape(title)}</h1>", f"<p class='sub'>{escape(_what(results))}</p>"]
    for result in results:
        body += _of(result, several=len(results) > 1)
    if len(results) > 1:
        body.insert(2, card("Side by side", _compared(results)))
    body.append(
        "<p class='sub'>Seconds are predictions of the step-time model; docs/accuracy.md says how "
        f"wrong those are. Made by <code>{escape(results[0].command)}</code></p>"
    )
    return document(title, body)


def _what(results: Sequence["Result"]) -> str:
    result = results[0]
    return (
        f"{result.source}. Gateways, admission, handoff and routing are production's own code; "
        f"the engines are simulated."
    )


def _of(result: "Result", *, several: bool) -> list[str]:
    head = f"{result.name}: " if several else ""
    return [
        _tiles(result, head),
        card(f"{head}Requests", _requests(result), _REQUESTS),
        "<div class='two'>",
        card(f"{head}GPUs at work", _busy(result), _legend(_roles(result))),
        card(f"{head}Kept", _kept(result), "<p>Of the requests that ended, within the SLO.</p>"),
        "</div>",
        card(f"{head}Latency", _latency(result)),
        card(f"{head}Classes of service", _classes(result)),
        card(f"{head}Decisions by reason", _decisions(result)),
        card(f"{head}What went wrong", _wrong(result)),
    ]


def _tiles(result: "Result", head: str) -> str:
    pools = ", ".join(
        f"{pool.replicas} × {pool.model.role} gang of {pool.model.gpus} GPUs"
        for pool in result.plan.pools
    )
    shown = "".join(
        f"<div class='tile'><span>{escape(name)}</span><b>{escape(text)}</b></div>"
        for name, text in figures(result)
    )
    return (
        f"<p class='sub'>{escape(head)}{escape(pools)}, {escape(result.plan.gpu)}</p>"
        f"<div class='tiles'>{shown}</div>"
    )


_REQUESTS = (
    "<ul class='legend'><li><i class='s0 key'></i>in flight</li>"
    "<li><i class='s1 key'></i>arrivals, a minute</li>"
    "<li><i class='s2 key'></i>ends, a minute</li></ul>"
    "<p>Upright: what went wrong, and when.</p>"
)


def _requests(result: "Result") -> str:
    line = result.meter.line
    spans = line.sums
    minute = 60 / line.span_s
    beats = spans.get("beats", [])
    in_flight = [
        total / count if count else 0.0
        for total, count in zip(spans.get("in_flight", []), beats, strict=False)
    ]
    few = len(result.faults) <= _NAMED
    marks = [
        Mark(fault.at_s, 0, fault.kind.value if few else "", upright=True)
        for fault in result.faults
    ]
    series = [
        _line("in flight", in_flight, line.span_s, "s0"),
        _line("arrivals", [n * minute for n in spans.get("begun", [])], line.span_s, "s1"),
        _line("ends", [n * minute for n in spans.get("ended", [])], line.span_s, "s2"),
    ]
    return _chart("s", "requests", series, marks, 960, 300)


def _busy(result: "Result") -> str:
    line = result.meter.line
    series = []
    for at, pool in enumerate(result.plan.pools):
        role = pool.model.role.value
        sums, held = line.sums.get(role, []), line.sums.get(f"held {role}", [])
        shares = [s / gpu_s if gpu_s else 0.0 for s, gpu_s in zip(sums, held, strict=False)]
        series.append(_line(role, shares, line.span_s, f"s{at}"))
    return _chart("s", "share of the time", series, [], 470, 260, y_most=1.05)


def _roles(result: "Result") -> list[str]:
    return [f"{role}, {share:.0%} of the time" for role, share in busy(result).items()]


def _kept(result: "Result") -> str:
    line = result.meter.line
    ended, kept = line.sums.get("ended", []), line.sums.get("kept", [])
    kept = kept + [0.0] * (len(ended) - len(kept))
    shares = [
        ((at + 0.5) * line.span_s, k / n)
        for at, (n, k) in enumerate(zip(ended, kept, strict=False))
        if n
    ]
    return _chart("s", "share", [Line("kept", shares, "s2")], [], 470, 260, y_most=1.05)


def _line(name: str, values: Iterable[float], span_s: float, style: str) -> Line:
    return Line(name, [((at + 0.5) * span_s, value) for at, value in enumerate(values)], style)


def _chart(
    x: str,
    y: str,
    series: Sequence[Line],
    marks: Sequence[Mark],
    width: int,
    height: int,
    y_most: float | None = None,
) -> str:
    series = [line for line in series if line.points]
    if not series or not any(value > 0 for line in series for _, value in line.points):
        return "<p>Nothing.</p>"
    return chart(Chart(x, y, series, marks, width=width, height=height, y_most=y_most))


def _latency(result: "Result") -> str:
    rows = [
        (
            f"{name}, {unit}",
            f"{values.mean * factor:,.4g}",
            *(f"{values.quantile(share) * factor:,.4g}" for share in _SHARES),
            f"{values.most * factor:,.4g}",
        )
        for name, unit, values, factor in latencies(result)
    ]
    return table(("", "mean", "p50", "p90", "p99", "most"), rows)


def _classes(result: "Result") -> str:
    rows = [
        (
            name or "default",
            f"{score.ended:,}",
            f"{score.kept / max(score.ended, 1):.1%}",
            f"{score.kept / result.lasted_s:.3g}",
            f"{score.prompt_tokens:,}",
            f"{score.output_tokens:,}",
        )
        for name, score in sorted(result.meter.classes.items())
    ]
    head = ("class", "requests", "within the SLO", "goodput, 1/s", "input", "output")
    return table(head, rows)


def _decisions(result: "Result") -> str:
    rows = [
        (event, reason, f"{count:,}")
        for (event, reason), count in sorted(result.meter.decisions.items())
    ]
    note = (
        "<p>Each single decision with its reason is in the <code>.decisions.csv.gz</code> beside "
        "this page; <code>--log</code> writes them with their inputs, for "
        "<code>r1-serve replay</code>.</p>"
    )
    return table(("decision", "reason", "times"), rows) + note


def _wrong(result: "Result") -> str:
    meter = result.meter
    if not meter.notes and not meter.causes:
        return "<p>Nothing.</p>"
    notes = [(f"{at:,.1f}", text) for at, text in meter.notes]
    causes = [(f"{count:,}", cause) for cause, count in meter.causes.most_common(20)]
    out = table(("at, s", "what"), notes) if notes else ""
    return out + (table(("requests", "did not end well"), causes) if causes else "")


def _compared(results: Sequence["Result"]) -> str:
    shown: dict[str, list[str]] = {}
    for at, result in enumerate(results):
        for name, text in figures(result):
            shown.setdefault(name, [""] * len(results))[at] = text
    for at, (name, unit, _, factor) in enumerate(latencies(results[0])):
        for share in (0.5, 0.99):
            shown[f"{name} p{share * 100:g}, {unit}"] = [
                f"{latencies(result)[at][2].quantile(share) * factor:,.4g}" for result in results
            ]
    rows = [(name, *texts) for name, texts in shown.items()]
    return table(("", *(result.name for result in results)), rows)


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f"<li><i class='s{at} key'></i>{escape(name)}</li>" for at, name in enumerate(names)
    )
    return f"<ul class='legend'>{items}</ul>"
