"""A load test's report as one HTML file: no script, nothing from elsewhere, light and dark."""

from collections.abc import Sequence
from html import escape

from loadtest.reading import Point, bounds_text
from loadtest.result import Latency
from orchestrator.cli.document import card, document, table
from orchestrator.cli.load_charts import (
    attainment,
    cost,
    goodput,
    plan_token,
    plan_ttft,
    token_times,
    ttft,
    utilisation,
)
from orchestrator.cli.load_report import LoadReport
from orchestrator.cli.plan_report import band_text

_PHASES = (
    (Latency.TTFT, "TTFT, from due to the first token", "s", 1.0),
    (Latency.FIRST_ANSWER, "to the first token of the answer", "s", 1.0),
    (Latency.ITL_THINKING, "ITL of thoughts", "ms", 1e3),
    (Latency.ITL_ANSWER, "ITL of answers", "ms", 1e3),
    (Latency.TPOT_THINKING, "TPOT of thoughts", "ms", 1e3),
    (Latency.TPOT_ANSWER, "TPOT of answers", "ms", 1e3),
    (Latency.E2E, "E2E", "s", 1.0),
)
_GPU = (
    ("r1_gpu_sm_active_ratio", "SMs at work"),
    ("r1_gpu_dram_active_ratio", "memory bandwidth in use"),
    ("r1_rank_kv_ratio", "KV blocks in use"),
    ("ranks_busy_ratio", "ranks with a request"),
)


def page(report: LoadReport) -> str:
    """The whole page."""
    result = report.result
    title = f"Load test of {result.model}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='sub'>{escape(_what(report))}</p>",
        f"<section><p class='answer'>{escape(report.answer)}</p></section>",
        _tiles(report),
        card("How many keep the SLO, against load", attainment(report), _knee_note(report)),
        "<div class='two'>",
        card("First token against load", ttft(report), _key(("median", "s0"), ("p99", "s1"))),
        card("Time for a token against load", token_times(report), _TOKEN_KEY),
        card("Goodput against load", goodput(report), _GOODPUT_NOTE),
        card("What the machines did", *_utilisation(report)),
        "</div>",
        card("What gives way next", _limit(report)),
        card("Nodes", _nodes(report)),
        *_plan(report),
        card("Phases", _phases(report)),
        *_cost(report),
        card("Every load", _loads(report)),
        card("Notes", _list(report.notes)),
        f"<p class='sub'>Made by <code>{escape(report.asked.command or 'r1-serve bench')}</code> "
        f"from <code>{escape(' '.join(result.command))}</code></p>",
    ]
    return document(title, body)


def _what(report: LoadReport) -> str:
    result = report.result
    requests = sum(point.due for point in report.points)
    seconds = sum(point.seconds for point in report.points)
    return (
        f"{result.workload} at {result.url}, begun {result.began_at}: {requests:,} requests over "
        f"{seconds / 60:,.0f} minutes of measured windows. SLO: {result.slo.share * 100:g} % of "
        f"all requests that were due within {bounds_text(result.slo)}. Latencies count from when a "
        "request was due, so that nothing that waits is left out."
    )


def _tiles(report: LoadReport) -> str:
    tiles: list[tuple[str, str, str]] = []
    capacity, best = report.capacity, _best(report)
    if capacity is not None:
        high = capacity.high_per_s
        interval = f"{capacity.low_per_s:.3g} to {'more' if high is None else f'{high:.3g}'}"
        tiles.append(("Requests/s in SLO", f"{capacity.per_s:.3g}", f"95 %: {interval}"))
    if best is not None:
        at = f"at {best.per_s:.3g} requests/s"
        tiles.append(("Tokens/s in + out", f"{best.tokens_per_s:,.0f}", at))
        tiles.append(("Median first token", f"{_quantile(best, Latency.TTFT, 0.5):.2f} s", at))
        tiles.append(("Time for a token", f"{best.tpot_s() * 1e3:.1f} ms", f"mean, {at}"))
        tiles.append(("Prompt tokens cached", f"{best.cached_share:.0%}", at))
        if report.money is not None:
            dollars = report.money.per_million(best)
            tiles.append(("A million tokens", f"${dollars:.3f}", f"{report.money.gpus:g} GPUs"))
    if report.need is not None:
        need = report.need
        tiles.append(
            (
                f"Nodes for {need.target_per_s:g}/s",
                f"{need.nodes}",
                f"95 %: {need.low} to {need.high}",
            )
        )
    shown = "".join(
        f"<div class='tile'><span>{escape(name)}</span><b>{escape(value)}</b>"
        f"<i>{escape(under)}</i></div>"
        for name, value, under in tiles
    )
    return f"<div class='tiles'>{shown}</div>"


def _best(report: LoadReport) -> Point | None:
    """The measured load nearest to the capacity, of those that held; else the least."""
    held = [p for p in report.served if p.attainment >= report.result.slo.share]
    if held and report.capacity is not None:
        below = [p for p in held if p.per_s <= report.capacity.per_s * 1.02]
        return max(below or held, key=lambda point: point.per_s)
    return max(held, key=lambda p: p.per_s) if held else next(iter(report.served), None)


def _knee_note(report: LoadReport) -> str:
    knee, slo = report.knee, report.result.slo
    if knee is None:
        return (
            "<p>Each dot is a window. No knee: the loads that were tried do not lie round one.</p>"
        )
    return (
        "<p>Each dot is a window; the line is the fit, the shade the 95 % interval of where it "
        f"crosses {slo.share * 100:g} %. There 1 % more load makes the odds of a miss "
        f"{knee.slope:.0f} % larger; windows scatter {knee.scatter:.1f} times as much as "
        "independent requests would, which the interval has in it.</p>"
    )


def _key(*names: tuple[str, str]) -> str:
    items = "".join(f"<li><i class='{style} key'></i>{escape(name)}</li>" for name, style in names)
    return f"<ul class='legend'>{items}</ul>"


_TOKEN_KEY = _key(
    ("thoughts, median", "s0"), ("p99", "s1"), ("answers, median", "s2"), ("p99", "s3")
)
_GOODPUT_NOTE = (
    _key(("within the SLO", "s0"), ("ended", "s2"), ("offered", "s4"))
    + "<p>Where the first leaves the last, more load buys less.</p>"
)


def _utilisation(report: LoadReport) -> Sequence[str]:
    if not any(point.server(name) is not None for point in report.served for name, _ in _GPU):
        return (
            "<p class='none'>The server's metrics were not read: give the run the address of its "
            "metrics endpoint.</p>",
        )
    key = _key(*((name, f"s{at}") for at, (_, name) in enumerate(_GPU)))
    return utilisation(report, _GPU), key, "<p>Means over the same windows.</p>"


def _limit(report: LoadReport) -> str:
    limit = report.limit
    if limit is None:
        return "<p>Nothing gave way at the loads that were tried.</p>"
    return (
        f"<p class='now'><b>{escape(limit.word)}</b></p><p>{escape(limit.evidence)}.</p>"
        f"<p>What helps: {escape(limit.cure)}.</p>"
    )


def _nodes(report: LoadReport) -> str:
    need = report.need
    if need is None:
        return "<p>No target was asked for: <code>--target R --nodes N</code>.</p>"
    return (
        f"<p class='now'><b>{need.nodes}</b> for {need.target_per_s:g} requests/s; from the ends "
        f"of the capacity's interval {need.low} to {need.high}.</p>"
        f"<p>Assumed: {escape(need.assumption)}. Nodes are whole.</p>"
    )


def _plan(report: LoadReport) -> list[str]:
    if report.fleet is None:
        text = "<p>No plan was given: <code>--plan VALUES</code> compares with its prediction.</p>"
        return [card("Against the plan", text)]
    if not report.compared:
        text = "<p>The plan predicts none of these loads: it is saturated before the first.</p>"
        return [card("Against the plan", text)]
    bands = report.fleet.bands()
    rows = [
        (
            f"{one.per_s:.3g}",
            f"{one.ttft_s:.3f}",
            f"{one.ttft_s_predicted:.3f}",
            f"{one.ttft_error:+.0%}",
            f"{one.tpot_s * 1e3:.1f}",
            f"{one.tpot_s_predicted * 1e3:.1f}",
            f"{one.tpot_error:+.0%}",
        )
        for one in report.compared
    ]
    heads = ("requests/s", "TTFT s", "predicted", "error", "ms a token", "predicted", "error")
    said = ""
    if report.predicted_per_s is not None and report.capacity is not None:
        per_s = report.capacity.per_s
        off = f", {report.predicted_per_s / per_s - 1:+.0%} of what was measured" if per_s else ""
        said = (
            f"<p>Most within the SLO by predicted means: {report.predicted_per_s:.3g} "
            f"requests/s{off}; what was measured is of shares of requests, which asks more.</p>"
        )
    error = _mean_errors(report)
    return [
        "<div class='two'>",
        card("First token, measured and predicted", plan_ttft(report), _PLAN_KEY),
        card("Time for a token, measured and predicted", plan_token(report), _PLAN_KEY),
        "</div>",
        card(
            "Against the plan",
            f"<p>Mean error: TTFT {error[0]:.1%}, time for a token {error[1]:.1%}; the plan's own "
            f"bands are {band_text(bands['ttft'])} and {band_text(bands['tpot'])}. "
            "<code>r1-serve fit --from</code> this report's JSON moves the plan's factors.</p>",
            said,
            table(heads, rows).replace("<table>", "<table class='num'>"),
        ),
    ]


_PLAN_KEY = _key(("measured, mean", "s0"), ("predicted", "s1"))


def _mean_errors(report: LoadReport) -> tuple[float, float]:
    many = len(report.compared)
    return (
        sum(abs(one.ttft_error) for one in report.compared) / many,
        sum(abs(one.tpot_error) for one in report.compared) / many,
    )


def _phases(report: LoadReport) -> str:
    best = _best(report)
    if best is None:
        return "<p>No window is the server's.</p>"
    rows = []
    for kind, name, unit, factor in _PHASES:
        seen = best.latencies[kind]
        if seen.count:
            values = [seen.mean, *(seen.quantile(share) for share in (0.5, 0.9, 0.99)), seen.most]
            rows.append((f"{name}, {unit}", *(f"{value * factor:,.4g}" for value in values)))
    heads = ("", "mean", "p50", "p90", "p99", "most")
    shown = table(heads, rows).replace("<table>", "<table class='num'>")
    tokens = best.tokens
    ended = max(best.ended, 1)
    return (
        f"{shown}<p>At {best.per_s:.4g} requests/s, {best.ended:,} requests. Of a request on "
        f"average: {tokens.prompt / ended:,.0f} tokens in ({best.cached_share:.0%} cached), "
        f"{tokens.thinking / ended:,.0f} thought, {tokens.answer / ended:,.0f} answered.</p>"
    )


def _cost(report: LoadReport) -> list[str]:
    money = report.money
    if money is None:
        return [
            card(
                "Cost",
                "<p>No price is known: <code>--price USD --gpus N</code>, or a plan with one.</p>",
            )
        ]
    note = (
        f"<p>Of input and output tokens alike, {money.gpus:g} GPUs at ${money.price:g} a GPU-hour, "
        f"${money.gpus * money.price * 24:,.0f} a day. The GPUs are paid for whatever the load.</p>"
    )
    return [card("Cost against load", cost(report, money), note)]


def _loads(report: LoadReport) -> str:
    rows = [
        (
            f"{point.per_s:.4g}",
            f"{point.due:,}",
            f"{point.attainment:.2%}",
            f"{point.goodput_per_s:.4g}",
            f"{_quantile(point, Latency.TTFT, 0.5):.3g}",
            f"{_quantile(point, Latency.TTFT, 0.99):.3g}",
            f"{point.tpot_s() * 1e3:.3g}",
            f"{point.concurrency:,.1f}",
            f"{point.cached_share:.0%}",
            ", ".join(f"{count:,} {name}" for name, count in point.errors.most_common(3))
            or ("the generator was late" if point.generator_bound else ""),
        )
        for point in report.points
    ]
    heads = (
        *("requests/s", "due", "in SLO", "goodput/s", "TTFT p50 s", "p99 s", "ms a token"),
        *("open", "cached", "errors"),
    )
    return table(heads, rows).replace("<table>", "<table class='num'>")


def _quantile(point: Point, kind: Latency, share: float) -> float:
    return point.latencies[kind].quantile(share)


def _list(sentences: Sequence[str]) -> str:
    if not sentences:
        return "<p>None.</p>"
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
