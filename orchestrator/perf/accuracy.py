"""How far predictions are from published measurements: row by row, and by group."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.perf.bands import Group, Mode
from orchestrator.perf.cases import Case, Unpredictable, cases_of
from orchestrator.perf.factors import Factors
from orchestrator.perf.layout import Array
from orchestrator.perf.predict import METRICS, predict, stacks

VALIDATE = "validate"
WIDE_EP = 16  # ranks from which expert parallelism counts as wide


@dataclass(frozen=True, slots=True)
class Point:
    """One metric of one row; seconds, requests a second, or tokens a second and GPU."""

    case: Case
    metric: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Signed: above 0 is predicted too high."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Statistics:
    """Errors of a group of points, as fractions."""

    rows: int
    mape: float
    median: float
    p90: float
    bias: float  # mean signed error
    within_20: float  # share of the rows
    spearman: float | None  # of prediction and measurement; None below three rows


@dataclass(frozen=True, slots=True)
class Target:
    """What predictions must reach on rows that were not fitted."""

    name: str
    bound: str
    reached: str
    met: bool


def predict_rows(rows: Sequence[Case | Unpredictable], factors: Factors) -> list[Point]:
    """Every metric of every row that can be predicted, in the rows' order."""
    cases = list(cases_of(rows))
    found: dict[tuple[int, str], Point] = {}
    for stack in stacks(cases):
        predicted = predict(stack, [factors])
        for place, index in enumerate(stack.index):
            case = cases[index]
            for metric in METRICS[stack.mode]:
                if metric in case.measured:
                    value = float(predicted[metric][0, place])
                    found[index, metric] = Point(case, metric, value, case.measured[metric])
    return [found[key] for key in sorted(found)]


def statistics(points: Sequence[Point]) -> Statistics:
    """Of at least one point."""
    signed = np.array([point.error for point in points])
    size = np.abs(signed)
    return Statistics(
        rows=len(points),
        mape=float(size.mean()),
        median=float(np.median(size)),
        p90=float(np.quantile(size, 0.9)),
        bias=float(signed.mean()),
        within_20=float(np.mean(size <= 0.2)),
        spearman=_spearman(points),
    )


def _spearman(points: Sequence[Point]) -> float | None:
    if len(points) < 3:
        return None
    ranks = [
        _ranks(np.array(values))
        for values in ([p.predicted for p in points], [p.measured for p in points])
    ]
    if any(np.ptp(r) == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Array) -> Array:
    """Ranks from 0, ties at their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    return np.asarray((first + (count - 1) / 2)[place])


def grouped(
    points: Iterable[Point], key: Callable[[Point], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Point]]:
    """The points by key, keys in order."""
    out: dict[tuple[str, ...], list[Point]] = {}
    for point in points:
        out.setdefault(key(point), []).append(point)
    return dict(sorted(out.items()))


def by_kind(point: Point) -> tuple[str, ...]:
    """Hardware, engine, mode, metric."""
    case = point.case
    return case.gpu.name, case.engine.value, case.mode.value, point.metric


def judged(points: Iterable[Point]) -> list[Point]:
    """Those on clean rows that were not fitted and no maximum-throughput bursts."""
    return [
        p for p in points if p.case.use == VALIDATE and p.case.clean and not p.case.max_throughput
    ]


def validated_groups(points: Iterable[Point]) -> list[Group]:
    """What `error_band` reads: groups of judged points within what was fitted."""
    near = [p for p in judged(points) if not p.case.extrapolated]
    return [
        Group(hardware, engine, mode, metric, len(group), round(statistics(group).p90, 4))
        for (hardware, engine, mode, metric), group in grouped(near, by_kind).items()
    ]


def targets(points: Sequence[Point]) -> list[Target]:
    """The project's accuracy targets, on judged rows."""
    rows = judged(points)

    def of(metric: str, *modes: Mode, wide: bool = False) -> list[Point]:
        return [
            p
            for p in rows
            if p.metric == metric
            and p.case.mode in modes
            and (not wide or p.case.side.layout.ep >= WIDE_EP)
        ]

    served = (Mode.UNIFIED, Mode.DISAGGREGATED)
    out = []
    if tpot := of("tpot", *served):
        found = statistics(tpot)
        out.append(_target(f"step TPOT, median of {found.rows} rows", found.median, 0.10))
        out.append(_target(f"step TPOT, MAPE of {found.rows} rows", found.mape, 0.15))
    wide = of("output_tokens", Mode.DECODE, wide=True)
    for name, group in (
        ("wide-EP decode tokens/s/GPU", wide),
        ("prefill tokens/s/GPU", of("input_tokens", Mode.PREFILL)),
    ):
        inside = [p for p in group if not p.case.extrapolated]
        for which, chosen in (("", inside), (", extrapolated ones too", group)):
            if chosen and not (which and len(inside) == len(group)):
                found = statistics(chosen)
                title = f"{name}, MAPE of {found.rows} rows{which}"
                out.append(_target(title, found.mape, 0.15))
    if rate := of("rate", *served):
        rho = statistics(rate).spearman
        if rho is not None:
            name = f"request rate, Spearman of {len(rate)} rows"
            out.append(Target(name, ">= 0.97", f"{rho:.3f}", rho >= 0.97))
    return out


def _target(name: str, value: float, bound: float) -> Target:
    return Target(name, f"<= {bound:.0%}", f"{value:.1%}", value <= bound)
