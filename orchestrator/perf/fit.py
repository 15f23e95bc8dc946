"""Fits the factors to measured rows that may be fitted: those marked `calibrate`, and no others.

Damped Gauss-Newton on the logarithm of prediction over measurement, with a Huber loss, so that one
odd row does not pull, and a prior for each factor, so that what the rows do not tell stays where
physics has it. No chance is involved: the same rows give the same factors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.core import SpecError
from orchestrator.perf.cases import Case
from orchestrator.perf.factors import Factors
from orchestrator.perf.layout import Array
from orchestrator.perf.predict import METRICS, Stack, predict, stacks

CALIBRATE = "calibrate"


@dataclass(frozen=True, slots=True)
class Prior:
    """Where a factor is expected, and how far off it may be: a standard deviation of its log."""

    value: float
    width: float
    most: float = np.inf


PRIORS: Mapping[str, Prior] = {
    "memory": Prior(0.8, 0.1, most=0.98),  # STREAM-like kernels reach 0.85-0.93
    "expert_memory": Prior(0.75, 0.15, most=0.98),
    "gemm": Prior(0.75, 0.08, most=0.98),  # DeepGEMM README: 1,550 of 1,979 TFLOPS
    "attention": Prior(0.5, 0.25, most=0.98),  # FlashAttention-3: up to 0.75, long and causal less
    "latent": Prior(0.5, 0.3, most=0.98),  # FlashMLA README: 660 of 989 TFLOPS
    "expert_tokens": Prior(64, 0.5),  # the rows of a tensor-core tile
    "link": Prior(0.7, 0.3, most=0.98),
    "reduce": Prior(0.9, 0.3),  # NCCL: 360-480 of 450 GB/s with in-switch sums
    "nic": Prior(1.0, 0.12),  # DeepEP README: 43-58 of 50 GB/s, local copies counted
    "layer_s": Prior(50e-6, 0.5),  # some 15 kernels of 2-5 us
    "collective_s": Prior(12e-6, 0.5),
    "exchange_s": Prior(20e-6, 0.5),
    "cross_s": Prior(42e-6, 0.5),  # DeepEP README: a dispatch of EP16 less one of EP8
    "step_s": Prior(0.9e-3, 0.5),
    "activations": Prior(1.2, 0.3),
    "pairs": Prior(1.3, 0.3),
    "spread": Prior(0.6, 0.4),
    "rebalanced": Prior(0.4, 0.5, most=0.98),
    "prefill_layer_s": Prior(500e-6, 0.5),
    "overlap": Prior(0.8, 0.2, most=0.98),
    "stall": Prior(0.8, 0.3),
    "bunch": Prior(0.2, 0.5),
    "first_token_s": Prior(0.13, 0.5),
}
_FIXED = {"pace": 1.0}  # an engine's pace is a multiplier of this
MULTIPLIERS: Mapping[tuple[str, str | None], Prior] = {
    # Of a dozen candidates (engine, generation, format of several factors) the only one that made
    # the error on hardware left out of the fit smaller: NVFP4 kernels come nearer to the bandwidth.
    ("expert_memory", "nvfp4"): Prior(1.0, 0.2),
    # Two rows of vLLM say that it is slower than the roofline that fits the other engines; a first
    # model with one factor an engine had 1.21 for it.
    ("pace", "vllm"): Prior(1.21, 0.1),
}
_SHIPPED_WIDTH = 0.15  # of the shipped factors, where an operator's own rows move them

# What a metric's error counts. A rate repeats TPOT with TTFT, and TTFT has much in it that is not
# of the engine; throughput rows are few and long averages. Bursts a closed form cannot tell well.
_WEIGHTS = {"tpot": 1.0, "ttft": 0.15, "rate": 0.4, "input_tokens": 2.0, "output_tokens": 2.0}
_BURST = 0.3
_PRIOR_WEIGHT = 0.1
_HUBER = 0.15  # error of the logarithm beyond which a row pulls no harder
_ITERATIONS = 40
_NUDGE = 1e-3  # of a factor's logarithm, for the slope of the residuals
_DIGITS = 4  # of a fitted factor: more would be noise


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted factors and where they come from; errors are mean |prediction / measurement - 1|."""

    factors: Factors
    row_ids: tuple[str, ...]
    error_before: Mapping[str, float]  # by metric, with the priors
    error_after: Mapping[str, float]


def fit(rows: Sequence[Case], start: Factors | None = None) -> Fit:
    """Factors from the rows marked `calibrate`; from `start`, near which they stay, if given."""
    cases = [row for row in rows if row.use == CALIBRATE and _weight_of(row)]
    if not cases:
        raise SpecError(
            "no row to fit: none is marked `calibrate` and has a metric that is fitted",
            f"mark rows with `use: {CALIBRATE}`; fitted metrics are {', '.join(_WEIGHTS)}",
        )
    problem = _Problem.of(cases, start)
    theta = problem.centre
    before = problem.errors(theta)
    theta = _descend(problem, theta)
    return Fit(
        problem.factors(theta), tuple(sorted(c.id for c in cases)), before, problem.errors(theta)
    )


def _weight_of(case: Case) -> bool:
    return any(name in _WEIGHTS for name in case.measured)


@dataclass(frozen=True, slots=True)
class _Target:
    """One metric of the cases of one stack that have it."""

    name: str
    index: NDArray[np.intp]
    measured: Array
    weight: Array


@dataclass(frozen=True, slots=True)
class _Problem:
    stacks: tuple[tuple[Stack, tuple[_Target, ...]], ...]
    keys: tuple[tuple[str, str | None], ...]  # a factor, or a factor's multiplier
    centre: Array  # logarithms
    width: Array
    most: Array
    start: Factors | None

    @classmethod
    def of(cls, cases: Sequence[Case], start: Factors | None) -> "_Problem":
        priors: dict[tuple[str, str | None], Prior] = {(n, None): p for n, p in PRIORS.items()}
        priors.update(MULTIPLIERS)
        centre = [
            prior.value if start is None else _known(start, name, kind)
            for (name, kind), prior in priors.items()
        ]
        width = [prior.width if start is None else _SHIPPED_WIDTH for prior in priors.values()]
        return cls(
            stacks=tuple((stack, _targets(stack)) for stack in stacks(cases)),
            keys=tuple(priors),
            centre=np.log(centre),
            width=np.array(width),
            most=np.log([prior.most for prior in priors.values()]),
            start=start,
        )

    def factors(self, theta: Array, digits: int = _DIGITS) -> Factors:
        """Rounded as they are written, so that a file predicts what the fit did."""
        values = dict(_FIXED)
        multipliers = {n: dict(m) for n, m in self.start.multipliers.items()} if self.start else {}
        for (name, kind), log in zip(self.keys, np.minimum(theta, self.most), strict=True):
            value = float(f"{np.exp(log):.{digits}g}")
            if kind is None:
                values[name] = value
            else:
                multipliers.setdefault(name, {})[kind] = value
        return Factors(values, multipliers)

    def residuals(self, thetas: Array) -> Array:
        """Logarithms of prediction over measurement, of shape [thetas, targets]."""
        factors = [self.factors(theta, digits=17) for theta in thetas]
        logs = []
        for stack, targets in self.stacks:
            found = predict(stack, factors)
            logs += [np.log(found[t.name][:, t.index] / t.measured) for t in targets]
        return np.concatenate(logs, axis=1)

    def weights(self) -> Array:
        """Of the targets, in the order of residuals."""
        return np.concatenate([t.weight for _, targets in self.stacks for t in targets])

    def cost(self, theta: Array) -> tuple[float, Array]:
        """What is made small, with its residuals."""
        r = self.residuals(theta[None])[0]
        size = np.abs(r)
        huber = np.where(size < _HUBER, r * r / (2 * _HUBER), size - _HUBER / 2)
        away = ((theta - self.centre) / self.width) ** 2
        return float(np.sum(self.weights() * huber) + _PRIOR_WEIGHT / 2 * np.sum(away)), r

    def errors(self, theta: Array) -> dict[str, float]:
        """Mean error by metric."""
        factors = self.factors(theta)
        by_metric: dict[str, list[float]] = {}
        for stack, targets in self.stacks:
            found = predict(stack, [factors])
            for target in targets:
                off = np.abs(found[target.name][0, target.index] / target.measured - 1)
                by_metric.setdefault(target.name, []).extend(off.tolist())
        return {name: float(np.mean(off)) for name, off in sorted(by_metric.items())}


def _known(start: Factors, name: str, kind: str | None) -> float:
    if kind is None:
        return start.values[name]
    return start.multipliers.get(name, {}).get(kind, 1.0)


def _targets(stack: Stack) -> tuple[_Target, ...]:
    out = []
    for name, weight in _WEIGHTS.items():
        index = [i for i, case in enumerate(stack.cases) if name in case.measured]
        if index and name in METRICS[stack.mode]:
            cases = [stack.cases[i] for i in index]
            out.append(
                _Target(
                    name,
                    np.array(index),
                    np.array([case.measured[name] for case in cases]),
                    np.array([weight * (_BURST if c.max_throughput else 1.0) for c in cases]),
                )
            )
    return tuple(out)


def _descend(problem: _Problem, theta: Array) -> Array:
    damping = 1e-2
    weights = problem.weights()
    cost, r = problem.cost(theta)
    for _ in range(_ITERATIONS):
        nudged = problem.residuals(theta + _NUDGE * np.eye(len(theta)))
        jacobian = (nudged - r).T / _NUDGE
        pull = weights / np.maximum(np.abs(r), _HUBER)
        prior = _PRIOR_WEIGHT / problem.width**2
        hessian = jacobian.T @ (jacobian * pull[:, None]) + np.diag(prior)
        slope = jacobian.T @ (pull * r) + prior * (theta - problem.centre)
        while damping < 1e6:
            step = -np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), slope)
            tried = theta + np.clip(step, -0.5, 0.5)
            lower, r_tried = problem.cost(tried)
            if lower < cost:
                break
            damping *= 4
        else:
            return theta
        gained, cost, theta, r = cost - lower, lower, tried, r_tried
        damping = max(damping / 3, 1e-4)
        if gained < 1e-5 * cost:
            return theta
    return theta
