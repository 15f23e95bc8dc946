"""`r1-serve bench compare`: whether two load tests differ, or chance explains it."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import SpecError

if TYPE_CHECKING:
    from loadtest.compare import Comparison, Difference
    from loadtest.result import Result

_WIDTH = 22


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.description = (
        "Compares two results of `r1-serve bench` at the loads that both have: share in the SLO, "
        "quantiles of latencies, and the capacity. A difference is told where chance explains it "
        "in fewer than one of twenty comparisons of equal runs, all tests of it together. Ends "
        "with 1 if B is worse than A in anything, with 0 if it is better or nothing can be told."
    )
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.set_defaults(run=_run, spec_error_code=2)


def _run(options: argparse.Namespace) -> int:
    from loadtest.compare import compare  # msgspec and numpy: not for other commands
    from loadtest.reading import read_result

    a, b = read_result(options.a), read_result(options.b)
    _comparable(options, a, b)
    found = compare(a, b)
    if not found.differences:
        raise SpecError(
            f"{options.a} and {options.b} have no load in common that the generator kept up with, "
            "and not both a capacity",
            "run both with the same loads, or find-capacity on both",
        )
    if options.format == "json":
        tree = {
            "differences": [asdict(one) for one in found.differences],
            "told": len(found.told),
            "worse": found.worse,
            "unmatched": found.unmatched,
        }
        print(json.dumps(tree, indent=1))
    else:
        print(table(found))
    return 1 if found.worse else 0


def _comparable(options: argparse.Namespace, a: "Result", b: "Result") -> None:
    if a.slo != b.slo:
        raise SpecError(
            f"{options.a} and {options.b} were run with different SLOs",
            "run both with the same --slo",
        )
    if a.workload != b.workload:
        raise SpecError(
            f"{options.a} is of workload {a.workload}, {options.b} of {b.workload}",
            "run both with the same workload",
        )


def table(found: "Comparison") -> str:
    """All measures that differ beyond chance, or a sentence that none does."""
    lines = []
    told = found.told
    if not told:
        lines.append(
            f"No difference can be told: chance explains all {len(found.differences)} measures."
        )
    shown = told or [one for one in found.differences if "p" not in one.measure[-4:]]
    lines.append(
        f"{'requests/s':>12}  {'measure':<{_WIDTH}}{'A':>12}{'B':>12}{'change':>9}{'p':>9}"
    )
    lines += [_line(one) for one in shown]
    hidden = len(found.differences) - len(shown)
    if told and hidden:
        lines.append(f"{hidden} other measures do not differ beyond chance.")
    if found.unmatched:
        loads = ", ".join(f"{per_s:.3g}" for per_s in found.unmatched)
        lines.append(f"Of one run only, and not compared: {loads} requests/s.")
    return "\n".join(lines)


def _line(one: "Difference") -> str:
    load = "all" if one.per_s is None else f"{one.per_s:.4g}"
    factor, unit = (1e3, "ms") if one.unit == "s" and max(one.a, one.b) < 1 else (1.0, one.unit)
    name = f"{one.measure}, {unit}"
    change = f"{one.b / one.a - 1:+.1%}" if one.a else ""
    p = f"{one.p:.3f}" if one.p >= 0.001 else "<0.001"
    return (
        f"{load:>12}  {name:<{_WIDTH}}{one.a * factor:>12.4g}{one.b * factor:>12.4g}"
        f"{change:>9}{p:>9}  {one.finding.value}"
    )
