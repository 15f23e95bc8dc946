"""What `r1-serve accuracy` prints and writes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from orchestrator.cli.accuracy_document import document, error_text, metric_text
from orchestrator.core import SpecError
from orchestrator.perf import Factors
from orchestrator.perf.accuracy import (
    Point,
    by_kind,
    grouped,
    judged,
    predict_rows,
    statistics,
    targets,
    validated_groups,
)
from orchestrator.perf.cases import Unpredictable
from orchestrator.perf.facts import facts
from orchestrator.perf.figures import read_figures


class Report:
    """The predictions of one file's rows."""

    def __init__(self, name: str, text: str, factors: Factors) -> None:
        rows = read_figures(text)
        self._name = name
        self._points = predict_rows(rows, factors)
        self._without = [row for row in rows if isinstance(row, Unpredictable)]

    def print_table(self) -> None:
        """Rows, groups, targets and facts, as text."""
        _print(self._name, self._points, self._without)

    def print_json(self) -> None:
        """The same as one JSON object."""
        json.dump(_tree(self._points, self._without), sys.stdout, indent=1)
        print()

    def write_page(self, path: Path) -> None:
        """The accuracy page."""
        write(path, document(self._points, self._without))

    def write_groups(self, path: Path) -> None:
        """The groups that error bands are taken from."""
        write(path, groups_text(self._points))


def groups_text(points: list[Point]) -> str:
    """The groups that error bands are taken from, YAML."""
    head = "# Written by `r1-serve accuracy --groups`; errors on rows that were not fitted.\n"
    found = [asdict(group) for group in validated_groups(points)]
    return head + yaml.safe_dump({"groups": found}, sort_keys=False)


def write(path: Path, text: str, mode: str = "w") -> None:
    """Writes a file of the operator's choice; "a" and no text says whether it could be."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}", "name another") from error


def _tree(points: list[Point], without: list[Unpredictable]) -> dict[str, object]:
    return {
        "rows": [
            {
                "id": point.case.id,
                "use": point.case.use,
                "clean": point.case.clean,
                "hardware": point.case.gpu.name,
                "engine": point.case.engine.value,
                "mode": point.case.mode.value,
                "metric": point.metric,
                "predicted": point.predicted,
                "measured": point.measured,
                "error": point.error,
                "extrapolated": point.case.extrapolated or None,
                "burst": point.case.max_throughput,
                "notes": list(point.case.notes),
            }
            for point in points
        ],
        "unpredicted": [asdict(row) for row in without],
        "groups": [
            {"hardware": h, "engine": e, "mode": m, "metric": metric, **asdict(statistics(group))}
            for (h, e, m, metric), group in grouped(judged(points), by_kind).items()
        ],
        "targets": [asdict(target) for target in targets(points)],
        "facts": [asdict(fact) for fact in facts()],
    }


def _print(name: str, points: list[Point], without: list[Unpredictable]) -> None:
    print(f"{name}: {len({id(p.case) for p in points})} rows predicted, {len(without)} not\n")
    print(f"{'row':<58} {'metric':<14} {'predicted':>10} {'measured':>10} {'error':>7}  use")
    for point in points:
        case = point.case
        remarks = [case.use, *([] if case.clean else ["not clean"])]
        remarks += ["burst"] if case.max_throughput else []
        remarks += [f"extrapolated: {case.extrapolated}"] if case.extrapolated else []
        remarks += case.notes
        print(
            f"{case.id:<58} {point.metric:<14} {metric_text(point.metric, point.predicted):>10} "
            f"{metric_text(point.metric, point.measured):>10} {error_text(point.error):>7}  "
            f"{'; '.join(remarks)}"
        )
    for row in without:
        print(f"{row.id:<58} not predicted: {row.reason}")
    _print_groups(points)
    print(f"\n{'target, on those rows':<62} {'bound':>8} {'reached':>8}")
    for target in targets(points):
        met = "" if target.met else "  MISSED"
        print(f"{target.name:<62} {target.bound:>8} {target.reached:>8}{met}")
    print(f"\n{'fact':<58} {'known':>16}  found")
    for fact in facts():
        print(f"{fact.name:<58} {fact.known:>16}  {fact.found}{'' if fact.agrees else '  DIFFERS'}")


def _print_groups(points: list[Point]) -> None:
    chosen = judged(points)
    if not chosen:
        return
    print("\nrows that were not fitted, clean, no bursts")
    head = ("rows", "MAPE", "median", "P90", "bias", "<=20%", "Spearman")
    print(f"{'hardware, engine, mode, metric':<46} " + " ".join(f"{h:>8}" for h in head))
    for key, group in grouped(chosen, by_kind).items():
        found = statistics(group)
        rho = "" if found.spearman is None else f"{found.spearman:.3f}"
        cells = (
            str(found.rows),
            f"{found.mape:.1%}",
            f"{found.median:.1%}",
            f"{found.p90:.1%}",
            f"{found.bias:+.1%}",
            f"{found.within_20:.0%}",
            rho,
        )
        print(f"{' '.join(key):<46} " + " ".join(f"{cell:>8}" for cell in cells))
