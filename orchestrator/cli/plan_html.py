"""A plan as one HTML file: no script, nothing from elsewhere, light and dark."""

from collections.abc import Sequence
from html import escape

from orchestrator.cli.document import card, document
from orchestrator.cli.plan_curves import Curve, curves
from orchestrator.cli.plan_report import Report, band_source, band_text, money, tokens_per_s
from orchestrator.cli.svg import Bar, Chart, Line, Mark, chart, stacked
from orchestrator.perf import Band
from orchestrator.placement import batch_limit, compared, grouped, per_million

_GB = 1e9
Row = Sequence[str]


def page(report: Report) -> str:
    """The whole page."""
    drawn = curves(report)
    plan = report.plan
    title = f"Plan: {plan.asked.model.name} on {plan.asked.gpus} × {plan.asked.gpu.name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='sub'>{escape(_asked(report))}</p>",
        _tiles(report),
        card("Throughput against latency", _frontier(report, drawn), _legend(report, drawn)),
        "<div class='two'>",
        card("Latency against load", _latency(report, drawn[0]), _LATENCY_NOTE),
        card("Cost against load", _cost(report, drawn[0]), _cost_note(report)),
        "</div>",
        card("Memory of a GPU", _memory(report), _memory_legend(report)),
        card("Layout", _layout(report)),
        card("Why", _list(report.reasons)),
        card("Runners-up", _runners_up(report)),
        card("Not the plan", _refused(report)),
        card("Notes", _list((*report.notes, *_sources(report)))),
        f"<p class='sub'>Made by <code>{escape(report.command)}</code></p>",
    ]
    return document(title, body)


def _asked(report: Report) -> str:
    asked = report.plan.asked
    workload, slo = asked.workload, asked.slo
    bounds = []
    if slo.ttft_s is not None:
        bounds.append(f"TTFT ≤ {slo.ttft_s:g} s")
    if slo.itl_s is not None:
        bounds.append(f"ITL ≤ {slo.itl_s * 1e3:g} ms")
    rate = "as many requests as fit"
    if workload.arrivals is not None:
        arrivals = workload.arrivals
        rate = f"{arrivals.requests_per_s:.3g} requests/s"
        if arrivals.peak_requests_per_s > arrivals.requests_per_s:
            rate += f", {arrivals.peak_requests_per_s:.3g} in the busiest time"
    return (
        f"{workload.name}: {workload.input_tokens.mean:,.0f} tokens in "
        f"({workload.prefix_hit:.0%} cached), {workload.output_tokens.mean:,.0f} out, {rate} "
        f"({workload.source}). {', '.join(bounds) or 'No SLO'}; best in {asked.objective}; "
        f"{len(asked.nodes)} nodes, fabric {asked.fabric}, {asked.weights} weights."
    )


def _tiles(report: Report) -> str:
    plan, chosen = report.plan, report.plan.chosen
    bands = plan.bands
    tokens = tokens_per_s(plan, chosen)
    tiles = [
        ("Requests/s in SLO", f"{chosen.rate_most:,.1f}", band_text(bands.rate)),
        ("Tokens/s in + out", f"{tokens:,.0f}", band_text(bands.rate)),
        ("TTFT", f"{chosen.ttft_s:.2f} s", band_text(bands.ttft)),
        ("ITL", f"{chosen.itl_s * 1e3:.1f} ms", band_text(bands.itl)),
    ]
    if (dollars := money(plan, chosen)) is not None:
        tiles.append(("A million tokens", f"${dollars[0]:.3f}", band_text(bands.rate)))
        tiles.append((f"{chosen.fleet.gpus} GPUs, a day", f"${dollars[2]:,.0f}", ""))
    else:
        tiles.append(("GPUs", f"{chosen.fleet.gpus}", f"of {plan.asked.gpus}"))
    shown = "".join(
        f"<div class='tile'><span>{escape(name)}</span><b>{escape(value)}</b>"
        f"<i>{escape(band)}</i></div>"
        for name, value, band in tiles
    )
    return f"<div class='tiles'>{shown}</div>"


def _frontier(report: Report, drawn: Sequence[Curve]) -> str:
    asked, chosen = report.plan.asked, report.plan.chosen
    tokens = asked.workload.input_tokens.mean + asked.workload.output_tokens.mean
    lines = [
        Line(
            curve.forecast.fleet.kind,
            [
                (itl * 1e3, rate * tokens / curve.forecast.fleet.gpus)
                for itl, rate in zip(curve.itl_s, curve.rates, strict=True)
            ],
            f"s{at}",
            _width(report.plan.bands.rate) if at == 0 else 0.0,
        )
        for at, curve in enumerate(drawn)
    ]
    marks = [Mark(chosen.itl_s * 1e3, chosen.rate * tokens / chosen.fleet.gpus, "the plan")]
    right = None
    if asked.slo.itl_s is not None:
        marks.append(
            Mark(asked.slo.itl_s * 1e3, 0, f"SLO {asked.slo.itl_s * 1e3:g} ms", upright=True)
        )
        right = asked.slo.itl_s * 1e3 * 2
    lines.reverse()  # the plan on top
    return chart(
        Chart(
            "ITL, ms",
            "tokens/s a GPU, in and out",
            lines,
            marks,
            width=960,
            height=380,
            x_most=right,
        )
    )


def _legend(report: Report, drawn: Sequence[Curve]) -> str:
    names = []
    for at, curve in enumerate(drawn):
        fleet = curve.forecast.fleet
        name = " + ".join(f"{c.gangs} × {c.shape.role} {c.shape.kind}" for c in fleet.crews)
        names.append(
            f"<li><i class='s{at} key'></i>{escape(name)}{' — the plan' if at == 0 else ''}</li>"
        )
    band = report.plan.bands.rate
    shade = f" The shade is {band_text(band)}." if isinstance(band, Band) else ""
    return (
        f"<ul class='legend'>{''.join(names)}</ul><p>Each line is a fleet, from a lone request to "
        f"all that it carries; left of the SLO and higher is better.{shade}</p>"
    )


def _latency(report: Report, curve: Curve) -> str:
    slo, chosen = report.plan.asked.slo, report.plan.chosen
    charts = []
    for name, values, bound, now, unit, factor, band in (
        ("TTFT", curve.ttft_s, slo.ttft_s, chosen.ttft_s, "s", 1.0, report.plan.bands.ttft),
        ("ITL", curve.itl_s, slo.itl_s, chosen.itl_s, "ms", 1e3, report.plan.bands.itl),
    ):
        shown = [(r, v * factor) for r, v in zip(curve.rates, values, strict=True) if v < 1e6]
        top = max(2.2 * bound * factor if bound else 0.0, 1.6 * now * factor) or None
        lines = [Line(name, shown, "s0", _width(band))]
        if bound is not None:
            lines.append(Line("SLO", [(0, bound * factor), (shown[-1][0], bound * factor)], "slo"))
        charts.append(
            chart(
                Chart(
                    "requests/s",
                    f"{name}, {unit}",
                    lines,
                    [Mark(chosen.rate, now * factor, "")],
                    width=470,
                    height=210,
                    y_most=top,
                )
            )
        )
    return "".join(charts)


_LATENCY_NOTE = (
    "<p>Means over requests, of the plan; dashed: the SLO; the dot: the load of the plan.</p>"
)


def _cost(report: Report, curve: Curve) -> str:
    plan, chosen = report.plan, report.plan.chosen
    asked = plan.asked
    tokens = asked.workload.input_tokens.mean + asked.workload.output_tokens.mean
    price = asked.gpu_price_per_hour
    name = "US dollars" if price is not None else "GPU-hours"
    points = [
        (rate, per_million(chosen.fleet.gpus, 1.0 if price is None else price, rate * tokens))
        for rate in curve.rates
        if rate > 0
    ]
    floor = points[-1][1]
    marks = [Mark(chosen.rate_most, 0, "most within the SLO", upright=True)]
    if asked.workload.arrivals is not None:
        mean = asked.workload.arrivals.requests_per_s
        marks.append(
            Mark(mean, per_million(chosen.fleet.gpus, price or 1.0, mean * tokens), "mean")
        )
    return chart(
        Chart(
            "requests/s",
            f"{name} a million tokens",
            [Line("cost", [p for p in points if p[1] < floor * 30], "s0", _width(plan.bands.rate))],
            marks,
            width=470,
            height=420,
            log_y=True,
        )
    )


def _cost_note(report: Report) -> str:
    price = report.plan.asked.gpu_price_per_hour
    at = "GPU-hours: no price is known" if price is None else f"at ${price:g} a GPU-hour"
    return (
        f"<p>Of input and output tokens alike, {at}. The GPUs are paid for whatever the load.</p>"
    )


def _memory(report: Report) -> str:
    plan = report.plan
    bars = [
        Bar(
            crew.shape.role.value,
            [(name.replace("_", " "), size, f"m-{name}") for name, size in parts.items() if size],
            float(plan.asked.gpu.memory_bytes),
        )
        for crew, parts in zip(plan.chosen.fleet.crews, plan.ledgers, strict=True)
    ]
    return stacked(bars, _GB, "GB")


def _memory_legend(report: Report) -> str:
    names = [name for name, size in report.plan.ledgers[0].items() if size]
    items = "".join(
        f"<li><i class='m-{name} key'></i>{escape(name.replace('_', ' '))} "
        f"{' / '.join(f'{parts[name] / _GB:.1f}' for parts in report.plan.ledgers)} GB</li>"
        for name in names
    )
    capacity = report.plan.asked.gpu.memory_bytes / _GB
    return (
        f"<ul class='legend'>{items}</ul><p>Of {capacity:.1f} GB as the driver reports them. "
        "Activations, graphs, communication and runtime are assumptions on the large side.</p>"
    )


def _layout(report: Report) -> str:
    plan = report.plan
    rows: list[Row] = []
    for at, crew in enumerate(plan.chosen.fleet.crews):
        layout = crew.shape.layout
        gangs = [gang for gang in plan.gangs if gang.pool == at]
        nodes = "; ".join(", ".join(gang.nodes) for gang in gangs[:16])
        rows.append(
            (
                crew.shape.role.value,
                f"{crew.gangs} × {crew.shape.gpus} GPUs on {crew.shape.nodes}",
                crew.shape.kind,
                str(layout.redundant_experts),
                str(layout.mtp_drafts),
                crew.shape.kv.value,
                str(batch_limit(plan.asked, crew, plan.chosen)),
                f"{layout.chunk_tokens:,}",
                nodes + (" …" if len(gangs) > 16 else ""),
            )
        )
    heads = (
        *("pool", "gangs × GPUs on nodes", "parallel", "redundant experts", "MTP drafts", "KV"),
        *("sequences a rank", "tokens a step", "nodes of each gang"),
    )
    return _table(heads, rows)


def _runners_up(report: Report) -> str:
    plan = report.plan
    rows: list[Row] = []
    for forecast in (plan.chosen, *plan.runners_up):
        dollars = money(plan, forecast)
        rows.append(
            (
                " + ".join(
                    f"{c.gangs} × {c.shape.role} {c.shape.name}" for c in forecast.fleet.crews
                ),
                str(forecast.fleet.gpus),
                f"{forecast.rate_most:,.2f}",
                f"{forecast.ttft_s:.2f}",
                f"{forecast.itl_s * 1e3:.1f}",
                "" if dollars is None else f"{dollars[0]:.3f}",
                "the plan"
                if forecast is plan.chosen
                else compared(plan.asked, forecast, plan.chosen),
            )
        )
    heads = ("fleet", "GPUs", "requests/s at most", "TTFT s", "ITL ms", "$ a million", "against it")
    return _table(heads, rows)


def _refused(report: Report) -> str:
    rows = [
        (reason.value, f"{count:,}", f"{r.shape.role} {r.shape.name}", r.violation.why)
        for reason, count, r in grouped(report.refused)
    ]
    shown = _table(("reason", "layouts", "for example", "arithmetic"), rows)
    if not report.explained:
        return f"{shown}<p>{len(report.plan.legal):,} legal layouts were not chosen.</p>"
    every = _table(
        ("layout", "reason", "arithmetic"),
        [
            (f"{r.shape.role} {r.shape.name}", r.violation.reason.value, r.violation.why)
            for r in report.refused
        ],
    )
    return f"{shown}<details><summary>Every layout</summary>{every}</details>"


def _sources(report: Report) -> list[str]:
    bands = report.plan.bands
    return [
        f"{name}: {band_text(band)}, {band_source(band)}."
        for name, band in (("TTFT", bands.ttft), ("ITL", bands.itl), ("Rates, cost", bands.rate))
    ]


def _width(band: object) -> float:
    return min(band.p90, 0.95) if isinstance(band, Band) else 0.0


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    shown = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<div class='wide'><table>{shown}</table></div>"
