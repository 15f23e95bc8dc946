"""A plan for a terminal of a hundred columns."""

import textwrap
from collections.abc import Iterator, Sequence

from orchestrator.cli.plan_report import Report, band_source, band_text, money, tokens_per_s
from orchestrator.perf import Extrapolated
from orchestrator.placement import Crew, Objective, Refusal, batch_limit, compared, grouped

WIDTH = 100
_GB = 1e9
_COMPONENTS = 6  # of a ledger that are named; the others are summed


def table(report: Report) -> str:
    """The whole report, lines of at most WIDTH characters."""
    lines = [
        *_asked(report),
        "",
        *_layout(report),
        "",
        *_predicted(report),
        "",
        *_bytes(report),
        "",
        *_section("WHY", report.reasons),
        "",
        *_runners_up(report),
        "",
        *_refused(report),
        "",
        *_section("NOTES", report.notes),
    ]
    return "\n".join(lines) + "\n"


def _asked(report: Report) -> Iterator[str]:
    asked = report.plan.asked
    workload, slo = asked.workload, asked.slo
    yield (
        f"PLAN  {asked.model.name} ({asked.weights}) on {asked.gpus} x {asked.gpu.name}, "
        f"{len(asked.nodes)} nodes, {asked.fabric}"
    )
    rate = "as many requests as fit"
    if workload.arrivals is not None:
        arrivals = workload.arrivals
        rate = f"{arrivals.requests_per_s:.3g} requests/s"
        if arrivals.peak_requests_per_s > arrivals.requests_per_s:
            rate += f", {arrivals.peak_requests_per_s:.3g} in the busiest time"
    lengths = (
        f"for   {workload.name}: {workload.input_tokens.mean:,.0f} tokens in "
        f"({workload.prefix_hit:.0%} cached), {workload.output_tokens.mean:,.0f} out; {rate}"
    )
    yield from _wrapped(lengths, "      ")
    yield from _wrapped(f"      {workload.source}", "      ")
    bounds = [
        f"TTFT <= {slo.ttft_s:g} s" if slo.ttft_s is not None else "",
        f"ITL <= {slo.itl_s * 1e3:g} ms" if slo.itl_s is not None else "",
    ]
    kept = ", ".join(bound for bound in bounds if bound) or "no SLO"
    yield f"      {kept}; best in {asked.objective}; requests up to {asked.context_tokens:,} tokens"


def _layout(report: Report) -> Iterator[str]:
    plan = report.plan
    for at, crew in enumerate(plan.chosen.fleet.crews):
        layout = crew.shape.layout
        head = "LAYOUT" if at == 0 else "      "
        shape = crew.shape
        yield (
            f"{head}  {_count(crew.gangs, f'{shape.role} gang')} of {_count(shape.gpus, 'GPU')} on "
            f"{_count(shape.nodes, 'node')}: {shape.kind}"
        )
        details = [
            f"{layout.redundant_experts} redundant experts" if layout.redundant_experts else "",
            f"MTP{layout.mtp_drafts}" if layout.mtp_drafts else "no MTP",
            f"{crew.shape.kv} KV",
            f"{batch_limit(plan.asked, crew, plan.chosen)} sequences a rank at most",
            f"{layout.chunk_tokens:,} tokens a step",
            "two-batch overlap" if layout.overlap else "",
        ]
        yield from _wrapped(f"        {', '.join(each for each in details if each)}", " " * 8)
        gangs = [gang for gang in plan.gangs if gang.pool == at]
        shown = "; ".join(_names(gang.nodes) for gang in gangs[:4])
        more = f"; and {_count(len(gangs) - 4, 'more gang')}" if len(gangs) > 4 else ""
        yield from _wrapped(f"        on {shown}{more}", "           ")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _names(nodes: Sequence[str]) -> str:
    return ", ".join(nodes) if len(nodes) <= 4 else f"{nodes[0]}, {nodes[1]} .. {nodes[-1]}"


def _predicted(report: Report) -> Iterator[str]:
    plan, chosen = report.plan, report.plan.chosen
    bands = plan.bands
    alone = plan.asked.rate is None and plan.asked.objective is Objective.LATENCY
    at = "of one request" if alone else f"at {chosen.rate:.3g} requests/s"
    tokens = tokens_per_s(plan, chosen)
    rows = [
        (f"TTFT {at}", f"{chosen.ttft_s:.2f} s", bands.ttft),
        (f"ITL {at}", f"{chosen.itl_s * 1e3:.1f} ms", bands.itl),
        ("most within the SLO", f"{chosen.rate_most:.2f} requests/s", bands.rate),
        ("tokens, in and out", f"{tokens:,.0f} /s", bands.rate),
        ("of a GPU", f"{tokens / chosen.fleet.gpus:,.0f} /s", bands.rate),
    ]
    if (dollars := money(plan, chosen)) is not None:
        rows += [
            ("a million tokens", f"${dollars[0]:.3f}", bands.rate),
            ("a million output tokens", f"${dollars[1]:.3f}", bands.rate),
        ]
    yield "PREDICTED"
    for name, value, band in rows:
        yield f"  {name:<28}{value:>20}   {band_text(band)}"
    if dollars is not None:
        yield f"  {'a day of these GPUs':<28}{f'${dollars[2]:,.0f}':>20}"
    for source in sorted({_source(band) for band in (bands.ttft, bands.itl, bands.rate)}):
        yield from _wrapped(f"  {source}", "    ")


def _source(band: object) -> str:
    word = "extrapolated: " if isinstance(band, Extrapolated) else "±: "
    return word + band_source(band)  # type: ignore[arg-type]  # one of the two


def _bytes(report: Report) -> Iterator[str]:
    plan = report.plan
    for crew, parts in zip(plan.chosen.fleet.crews, plan.ledgers, strict=True):
        capacity = plan.asked.gpu.memory_bytes
        yield f"BYTES of a {crew.shape.role} GPU, {capacity / _GB:.1f} GB"
        rest = dict(parts)
        kv = rest.pop("kv")
        largest = sorted(rest.items(), key=lambda part: -part[1])[:_COMPONENTS]
        others = sum(rest.values()) - sum(size for _, size in largest)
        for name, size in (*largest, ("others", others), ("kv, the rest", kv)):
            yield _bar(name.replace("_", " "), size, capacity)


def _bar(name: str, size: float, capacity: float) -> str:
    blocks = round(50 * size / capacity)
    return f"  {name:<22}{size / _GB:>7.1f} GB  {'█' * blocks}{'░' * (50 - blocks)}"


def _runners_up(report: Report) -> Iterator[str]:
    plan = report.plan
    yield f"{'RUNNERS-UP':<46}{'GPUs':>5}{'most r/s':>10}{'TTFT s':>9}{'ITL ms':>8}  against it"
    for forecast in (plan.chosen, *plan.runners_up):
        against = "the plan"
        if forecast is not plan.chosen:
            against = compared(plan.asked, forecast, plan.chosen)
        name = " + ".join(_crew(crew) for crew in forecast.fleet.crews)
        yield (
            f"  {_cut(name, 43):<44}{forecast.fleet.gpus:>5}{forecast.rate_most:>10.2f}"
            f"{forecast.ttft_s:>9.2f}{forecast.itl_s * 1e3:>8.1f}  {_cut(against, 20)}"
        )


def _crew(crew: Crew) -> str:
    letter = {"unified": "", "prefill": "P ", "decode": "D "}[crew.shape.role.value]
    drafts = f" MTP{crew.shape.layout.mtp_drafts}" if crew.shape.layout.mtp_drafts else ""
    return f"{crew.gangs} x {letter}{crew.shape.kind}{drafts}"


def _refused(report: Report) -> Iterator[str]:
    total = len(report.refused)
    yield f"NOT THE PLAN  {total:,} layouts, by their first reason; the widest of each as example"
    for reason, count, example in grouped(report.refused):
        yield from _wrapped(
            f"  {reason:<20}{count:>6}  {_named(example)}: {example.violation.why}", " " * 30
        )
    if not report.explained:
        yield f"  legal, not chosen   {len(report.plan.legal):>6}  --explain lists every layout"
        return
    yield ""
    yield "EVERY LAYOUT"
    for refusal in report.refused:
        yield from _wrapped(
            f"  {refusal.violation.reason:<20}{_named(refusal)}: {refusal.violation.why}", " " * 22
        )


def _named(refusal: Refusal) -> str:
    return f"{refusal.shape.role} {refusal.shape.name}"


def _section(title: str, sentences: Sequence[str]) -> Iterator[str]:
    yield title
    for sentence in sentences:
        yield from _wrapped(f"  {sentence}", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
