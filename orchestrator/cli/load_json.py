"""A load test's report as one JSON tree; units are in the names."""

from dataclasses import asdict

import msgspec

from loadtest.reading import Point
from loadtest.result import Latency
from orchestrator.cli.bench_report import LOAD_REPORT
from orchestrator.cli.load_report import LoadReport
from orchestrator.cli.plan_report import band_text

_SHARES = (0.5, 0.9, 0.99)
Tree = dict[str, object]


def tree(report: LoadReport) -> Tree:
    """Everything that the page has."""
    result = report.result
    return {
        "kind": LOAD_REPORT,
        "version": 1,
        "command": report.asked.command,
        "run": {
            "began_at": result.began_at,
            "url": result.url,
            "model": result.model,
            "workload": result.workload,
            "command": result.command,
            "seed": result.seed,
            "workers": result.workers,
            "slo": msgspec.to_builtins(result.slo),
        },
        "answer": report.answer,
        "capacity": msgspec.to_builtins(report.capacity),
        "knee": None if report.knee is None else asdict(report.knee),
        "gives_way": None if report.limit is None else asdict(report.limit),
        "nodes_needed": None if report.need is None else asdict(report.need),
        "money": None if report.money is None else asdict(report.money),
        "loads": [_load(report, point) for point in report.points],
        "plan": _plan(report),
        "fit_rows": list(report.rows),
        "notes": list(report.notes),
    }


def _load(report: LoadReport, point: Point) -> Tree:
    latencies = {
        kind.value: {
            "count": seen.count,
            "mean_s": seen.mean,
            **{f"p{share * 100:g}_s": seen.quantile(share) for share in _SHARES},
        }
        for kind in Latency
        if (seen := point.latencies[kind]).count
    }
    names = sorted({name for window in point.windows for name in window.server})
    return {
        "requests_per_s": point.per_s,
        "seconds": point.seconds,
        "due": point.due,
        "ended": point.ended,
        "attainment": point.attainment,
        "goodput_per_s": point.goodput_per_s,
        "concurrency": point.concurrency,
        "tokens_per_s": point.tokens_per_s,
        "tokens": msgspec.to_builtins(point.tokens),
        "cached_share": point.cached_share,
        "usd_per_million_tokens": None
        if report.money is None or not point.tokens_per_s
        else report.money.per_million(point),
        "latencies": latencies,
        "errors": dict(point.errors),
        "generator_bound": point.generator_bound,
        "server": {name: point.server(name) for name in names},
    }


def _plan(report: LoadReport) -> Tree | None:
    fleet = report.fleet
    if fleet is None:
        return None
    return {
        "file": str(fleet.path),
        "gpu": fleet.plan.gpu,
        "gpus": fleet.plan.gpus,
        "nodes": fleet.nodes,
        "requests_per_s_most": report.predicted_per_s,
        "error_bands": {name: band_text(band) for name, band in fleet.bands().items()},
        "compared": [
            {**asdict(one), "ttft_error": one.ttft_error, "tpot_error": one.tpot_error}
            for one in report.compared
        ],
    }
