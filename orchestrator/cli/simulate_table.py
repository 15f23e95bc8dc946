"""A simulation for a terminal, and as JSON."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.core import Histogram
from orchestrator.sim.call import Outcome

if TYPE_CHECKING:
    from orchestrator.cli.simulate_run import Result

_SHARES = (0.5, 0.9, 0.99)


def figures(result: "Result") -> list[tuple[str, str]]:
    """What a run came to, as names and texts."""
    meter = result.meter
    kept = sum(score.kept for score in meter.classes.values())
    ended = sum(meter.outcomes.values())
    tokens = meter.prompt_tokens + meter.output_tokens
    rows = [
        ("requests", f"{ended:,}"),
        *((str(o), f"{meter.outcomes[o]:,}") for o in Outcome if meter.outcomes[o]),
        ("within the SLO", f"{kept / max(ended, 1):.1%}"),
        ("goodput, requests/s", f"{kept / result.lasted_s:.2f}"),
        ("output, tok/s/GPU", f"{meter.output_tokens / result.lasted_s / result.gpus:,.0f}"),
        ("prefix hit", f"{meter.cached_tokens / max(meter.prompt_tokens, 1):.1%}"),
        ("in flight, mean", f"{meter.in_flight_s / result.lasted_s:,.1f}"),
        *((f"busy, {role}", f"{share:.0%}") for role, share in busy(result).items()),
        ("GPUs held, mean", f"{result.gpus:,.1f}"),
        ("GPU-hours", f"{result.gpu_hours:,.1f}"),
    ]
    if result.cost is not None:
        rows.append(("cost", f"${result.cost:,.2f}"))
        rows.append(("a million tokens", f"${result.cost / max(tokens, 1) * 1e6:.3f}"))
    return rows


def busy(result: "Result") -> dict[str, float]:
    """Of each role's GPUs, the share of the time in which they computed."""
    meter = result.meter
    return {
        role: meter.busy_s.get(role, 0.0) / held_s
        for role, held_s in meter.held_s.items()
        if held_s
    }


def latencies(result: "Result") -> list[tuple[str, str, Histogram, float]]:
    """Name, unit, values, and the factor from seconds to the unit."""
    meter = result.meter
    return [
        ("TTFT", "s", meter.ttft, 1.0),
        ("time to first answer token", "s", meter.answer, 1.0),
        ("ITL", "ms", meter.itl, 1e3),
        ("TPOT", "ms", meter.tpot, 1e3),
        ("whole request", "s", meter.e2e, 1.0),
    ]


def table(results: Sequence["Result"]) -> str:
    """The runs side by side."""
    return "\n".join(_lines(results))


def _lines(results: Sequence["Result"]) -> Iterator[str]:
    yield f"SIMULATED  {results[0].source}, seed and all as in: {results[0].command}"
    for result in results:
        pools = ", ".join(
            f"{pool.replicas} x {pool.model.role} gang of {pool.model.gpus} GPUs"
            for pool in result.plan.pools
        )
        yield f"{result.name}: {pools} ({result.plan.gpu})"
    yield ""
    yield f"{'':<34}" + "".join(f"{result.name[:20]:>22}" for result in results)
    shown: dict[str, list[str]] = {}
    for at, result in enumerate(results):
        for name, text in figures(result):
            shown.setdefault(name, [""] * len(results))[at] = text
    for name, texts in shown.items():
        yield f"{name:<34}" + "".join(f"{text:>22}" for text in texts)
    yield ""
    for at, (name, unit, _, factor) in enumerate(latencies(results[0])):
        cells = []
        for result in results:
            values = latencies(result)[at][2]
            quantiles = " / ".join(_text(values.quantile(q) * factor) for q in _SHARES)
            cells.append(f"{quantiles:>22}")
        yield f"{f'{name} p50/p90/p99, {unit}':<38}" + "".join(cells)
    for result in results:
        yield from _classes(result)
        yield from _decisions(result)
    yield ""
    yield "; ".join(
        f"{result.name}: {result.lasted_s:,.0f} s simulated in {result.took_s:.1f} s, "
        f"{result.events:,} events"
        for result in results
    )


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _classes(result: "Result") -> Iterator[str]:
    if len(result.meter.classes) < 2:
        return
    yield ""
    yield f"{result.name}: classes of service"
    for name, score in sorted(result.meter.classes.items()):
        share = score.kept / max(score.ended, 1)
        yield f"  {name or 'default':<32}{score.ended:>10,} requests, {share:.1%} within the SLO"


def _decisions(result: "Result") -> Iterator[str]:
    yield ""
    yield f"{result.name}: decisions by reason"
    for (event, reason), count in sorted(result.meter.decisions.items()):
        yield f"  {event:<12}{reason:<24}{count:>10,}"
    if result.meter.notes:
        yield f"{result.name}: what went wrong, and was mended"
        for at, text in result.meter.notes:
            yield f"  {at:>9.1f} s  {text}"
    for cause, count in result.meter.causes.most_common(12):
        yield f"  {count:>9,}  {cause}"


def tree(result: "Result") -> dict[str, object]:
    """Everything as JSON."""
    meter = result.meter

    def values(histogram: Histogram) -> dict[str, float]:
        return {
            "count": histogram.count,
            "mean": histogram.mean,
            **{f"p{q * 100:g}": histogram.quantile(q) for q in _SHARES},
            "max": histogram.most,
        }

    named: dict[str, Callable[[], Histogram]] = {
        "ttft_s": lambda: meter.ttft,
        "first_answer_token_s": lambda: meter.answer,
        "itl_s": lambda: meter.itl,
        "tpot_s": lambda: meter.tpot,
        "request_s": lambda: meter.e2e,
    }
    return {
        "name": result.name,
        "command": result.command,
        "source": result.source,
        "gpus": result.plan.gpus,
        "gpus_held_mean": result.gpus,
        "gpu": result.plan.gpu,
        "simulated_s": result.lasted_s,
        "outcomes": {str(outcome): count for outcome, count in sorted(meter.outcomes.items())},
        "classes": {
            name or "default": {"ended": score.ended, "within_slo": score.kept}
            for name, score in sorted(meter.classes.items())
        },
        "goodput_requests_per_s": sum(s.kept for s in meter.classes.values()) / result.lasted_s,
        "latency": {name: values(of()) for name, of in named.items()},
        "prompt_tokens": meter.prompt_tokens,
        "cached_tokens": meter.cached_tokens,
        "output_tokens": meter.output_tokens,
        "busy": busy(result),
        "gpu_hours": result.gpu_hours,
        "usd": result.cost,
        "decisions": [
            {"event": event, "reason": reason, "count": count}
            for (event, reason), count in sorted(meter.decisions.items())
        ],
        "notes": [{"at_s": at, "text": text} for at, text in meter.notes],
        "causes": dict(sorted(meter.causes.items())),
        "timeline": {"span_s": meter.line.span_s, **meter.line.sums},
    }
