"""`r1-serve accuracy --model simulator`: published rows played again, beside the closed form.

Rows marked `validate` were never fitted, and the simulator has no factor of its own; how engines
were started is in `sim/recipes.py`, from the rows' own sources. The closed form's prediction of the
same row stands beside each.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from orchestrator.cli.accuracy_document import error_text, metric_text
from orchestrator.cli.accuracy_report import write
from orchestrator.core import SpecError
from orchestrator.perf import Factors, Mode
from orchestrator.perf.accuracy import VALIDATE, predict_rows
from orchestrator.perf.cases import Case, Unpredictable, cases_of
from orchestrator.perf.figures import read_figures
from orchestrator.perf.predict import METRICS
from orchestrator.sim.replay_case import replay_case

_SPEEDS = ("output_tokens", "total_tokens", "input_tokens")  # tokens a second and GPU


@dataclass(frozen=True, slots=True)
class Played:
    """One metric of one row."""

    case: Case
    metric: str
    simulated: float
    step: float
    measured: float

    @property
    def error(self) -> float:
        """Signed: above 0 is too high."""
        return self.simulated / self.measured - 1

    @property
    def step_error(self) -> float:
        """Of the closed form."""
        return self.step / self.measured - 1

    @property
    def burst(self) -> bool:
        """In-flight batching at its maximum with attention data-parallel ranks."""
        return self.case.max_throughput and self.case.side.layout.dp > 1

    @property
    def unknowable(self) -> str:
        """Why a TTFT cannot be known from what the row says, or ""; never asks the prediction."""
        case = self.case
        if self.metric != "ttft":
            return ""
        if not case.clean:
            return "not clean"
        if case.max_throughput:
            return "all at once: it is the wait in the client's own queue"
        if case.mode is Mode.DISAGGREGATED:
            # The row has neither the queue policy between the pools nor the rate at which its
            # load generator started.
            return "how its pools queue is not stated"
        return ""


def _play(
    rows: Sequence[Case | Unpredictable],
    factors: Factors,
    seed: int,
    most: float | None,
    tell: Callable[[Played], None],
) -> list[Played]:
    """Every metric of every row, each told as soon as it is known; `most` leaves out fleets with
    more in flight.
    """
    cases = list(cases_of(rows))
    step = {
        (point.case.id, point.metric): point.predicted for point in predict_rows(cases, factors)
    }
    found: list[Played] = []
    for number, case in enumerate(cases, 1):
        if most is not None and case.concurrency > most:
            continue
        if sys.stderr.isatty():
            print(f"\r{number} of {len(cases)}: {case.id:<70}\r", end="", file=sys.stderr)
        played = replay_case(case, factors, seed)
        for metric in METRICS[case.mode]:
            if metric in case.measured:
                simulated, measured = played.metrics[metric], case.measured[metric]
                found.append(Played(case, metric, simulated, step[case.id, metric], measured))
                tell(found[-1])
    return found


def run(
    text: str,
    name: str,
    factors: Factors,
    seed: int,
    most: float | None,
    out: Path | str,
    use: str,
) -> None:
    """Plays the rows of `text`, the file `name`, that are marked `use`; writes the page `out`, or
    prints a "table" or "json".
    """
    rows = [row for row in read_figures(text) if row.use == use]
    match out:
        case Path():
            if use != VALIDATE:
                raise SpecError("the page is of rows that were not fitted", "leave --rows out")
            write(out, "", "a")  # that it cannot be written is known before the minutes have passed
            write(out, document(name, _play(rows, factors, seed, most, lambda p: None)))
        case "json":
            json.dump(_tree(_play(rows, factors, seed, most, lambda p: None)), sys.stdout)
            print()
        case _:
            print(f"{name}: {use} rows, simulated / closed form / measured")
            played = _play(rows, factors, seed, most, _print_row)
            print(f"{sum(isinstance(row, Unpredictable) for row in rows)} rows have no prediction")
            for title, bound, reached, met, formula in targets(played):
                word = "met " if met else "MISS"
                print(f"{word}  {title}: {reached} ({bound}); closed form {formula}")


def _print_row(p: Played) -> None:
    values = " / ".join(metric_text(p.metric, v) for v in (p.simulated, p.step, p.measured))
    errors = f"{error_text(p.error):>7} {error_text(p.step_error):>7}"
    row = f"{p.case.id[:58]:<58} {p.metric:<14}{values:>30} {errors} {_remarks(p)}"
    print(row.rstrip(), flush=True)


def targets(played: Sequence[Played]) -> list[tuple[str, str, str, bool, str]]:
    """Name, bound, what the simulator reaches, whether it does, and what the formula reaches."""
    clean = [p for p in played if p.case.clean and not p.case.max_throughput]
    served = [p for p in clean if p.case.mode in (Mode.UNIFIED, Mode.DISAGGREGATED)]
    groups: list[tuple[str, list[Played], float, Callable[[list[float]], float]]] = [
        ("TPOT, MAPE", [p for p in served if p.metric == "tpot"], 0.15, fmean),
        ("tokens/s/GPU, MAPE", [p for p in clean if p.metric in _SPEEDS], 0.15, fmean),
        (
            "in-flight batching, attention DP: tokens/s/GPU, MAPE",
            [p for p in played if p.burst and p.metric == "output_tokens"],
            0.20,
            fmean,
        ),
        (
            "TTFT where it can be known, median",
            [p for p in played if p.metric == "ttft" and not p.unknowable],
            0.25,
            median,
        ),
    ]
    out = []
    for name, group, bound, of in groups:
        if group:
            reached = of([abs(p.error) for p in group])
            formula = of([abs(p.step_error) for p in group])
            title = f"{name} of {len(group)} rows"
            out.append(
                (title, f"<= {bound:.0%}", f"{reached:.1%}", reached <= bound, f"{formula:.1%}")
            )
    return out


def _remarks(p: Played) -> str:
    words = [] if p.case.clean else ["not clean"]
    words += ["attention-DP burst" if p.burst else "burst"] if p.case.max_throughput else []
    words += [p.unknowable] if p.unknowable and p.unknowable != "not clean" else []
    return "; ".join(words)


def _tree(played: Sequence[Played]) -> dict[str, object]:
    return {
        "targets": [
            {"name": n, "bound": b, "reached": r, "met": m, "closed_form": c}
            for n, b, r, m, c in targets(played)
        ],
        "rows": [
            {
                "id": p.case.id,
                "metric": p.metric,
                "simulated": p.simulated,
                "closed_form": p.step,
                "measured": p.measured,
                "error": p.error,
                "remarks": _remarks(p),
            }
            for p in played
        ],
    }


_INTRO = """# How wrong the simulator is

Written by `r1-serve accuracy --model simulator --write FILE` from `{name}`; do not edit. Each
`validate` row is played in the simulator in a closed loop: its own fleet, its own load, lengths
uniform between 0.8 and 1.0 of the nominal ones where the benchmark draws them so, a lognormal tail
where the row has a data set's means. Nothing was fitted to these rows, and the simulator adds no
factor to those of the closed form. What a row leaves out of how its engine was started, and its
source says, is in `orchestrator/sim/recipes.py`: chunks, how often SGLang's scheduler looks at what
has arrived, how long TensorRT-LLM lets prompts wait for those of other ranks. A row that measures
one decode step is not played, only priced.

A TTFT *can be known* of clean rows of one pool. Of rows with two pools it cannot: how requests
queue between them is not stated. Rows whose requests come all at once measure the client's own
queue. Both are told by what a row says of its run, never by its error, and stand below with theirs.
"""


def document(name: str, played: Sequence[Played]) -> str:
    """The page `docs/accuracy-simulator.md`."""
    lines = [
        _INTRO.format(name=name),
        "| target | bound | simulator | met | closed form |",
        "|---|---|---|---|---|",
    ]
    for title, bound, reached, met, formula in targets(played):
        lines.append(
            f"| {title} | {bound} | {reached} | {'yes' if met else '**no**'} | {formula} |"
        )
    lines += [
        "",
        "| row | metric | simulated | closed form | measured | error | closed form's | remarks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in played:
        values = " | ".join(metric_text(p.metric, v) for v in (p.simulated, p.step, p.measured))
        errors = f"{error_text(p.error)} | {error_text(p.step_error)}"
        lines.append(f"| {p.case.id} | {p.metric} | {values} | {errors} | {_remarks(p)} |")
    return "\n".join(lines) + "\n"
