"""What routing needs to know of a layout: its step-time model as a few numbers of one rank.

The model has kinks (a roofline's, a chunk's, an expert's first token). Routing compares ranks of
one kind around their working point, where a linear fit is good.
"""

import numpy as np
from numpy.typing import NDArray

from orchestrator.perf.factors import Factors
from orchestrator.perf.layout import Array, LayoutGrid
from orchestrator.perf.point import Point
from orchestrator.perf.start import kv_transfer_s
from orchestrator.perf.step import decode_pass, prefill_pass
from orchestrator.perf.system import efficiency
from orchestrator.perf.traffic import Traffic
from orchestrator.spec import StepCosts

_AROUND = np.array([1 / 16, 1 / 4, 1 / 2, 1.0, 2.0])  # of the working point
_PROMPT_MIN = 256.0  # tokens: below that a prefill is all latency
_DIGITS = 4  # significant: the model is no better, and the numbers are read by people


def rank_costs(
    grid: LayoutGrid, traffic: Traffic, batch: float, factors: Factors | None = None
) -> StepCosts:
    """The costs of a rank of the one layout of `grid`, around the traffic's mean lengths and a
    decode batch of `batch` requests.

    All ranks of the gang are taken to be as busy: they share each step. A decode step's seconds are
    those of one token, drafts that are accepted counted.
    """
    prompt = max(float(np.mean(traffic.input_tokens)), _PROMPT_MIN)
    context = max(float(np.mean(traffic.context())), _PROMPT_MIN)
    base_s, token_s, pair_s = _prefill(grid, prompt, factors)
    step_base_s, request_s, step_token_s = _decode(grid, traffic, max(batch, 1.0), context, factors)
    moved_base_s = float(np.squeeze(kv_transfer_s(grid, 0.0, factors)))
    moved_s = float(np.squeeze(kv_transfer_s(grid, prompt, factors)))
    return StepCosts(
        prefill_base_s=_short(base_s),
        prefill_token_s=_short(token_s),
        prefill_pair_s=_short(pair_s),
        step_base_s=_short(step_base_s),
        step_request_s=_short(request_s),
        step_token_s=_short(step_token_s),
        stall=1.0,  # a chunk of a prompt and the decodes beside it are one step
        transfer_base_s=_short(moved_base_s),
        transfer_token_s=_short((moved_s - moved_base_s) / prompt),
    )


def _prefill(grid: LayoutGrid, prompt: float, factors: Factors | None) -> Array:
    """Seconds: of a prefill, of a token, of a pair of one computed and one before it."""
    p, e = Point.of(grid), efficiency(grid, factors)
    new = np.concatenate([prompt * _AROUND, prompt * _AROUND])
    hit = np.concatenate([np.zeros_like(_AROUND), np.full_like(_AROUND, prompt)])
    passes = np.ceil(new / p.chunk_tokens)
    part = new / passes
    before = hit + part * (passes - 1) / 2
    seconds = passes * prefill_pass(p, e, part, hit + new / 2, before).total_s / p.pp
    return _fit(np.stack([np.ones_like(new), new, new * (hit + new / 2)], axis=-1), seconds)


def _decode(
    grid: LayoutGrid, traffic: Traffic, batch: float, context: float, factors: Factors | None
) -> Array:
    """Seconds: of a step, of a request in it, of a token of its context."""
    p, e = Point.of(grid), efficiency(grid, factors)
    requests, each = (
        grown.ravel() for grown in np.meshgrid(batch * _AROUND, context * _AROUND, indexing="ij")
    )
    seconds = decode_pass(p, e, requests, each).total_s / traffic.accepted(p.drafts)
    return _fit(np.stack([np.ones_like(requests), requests, requests * each], axis=-1), seconds)


def _fit(terms: NDArray[np.float64], seconds: Array) -> Array:
    """Factors of the terms, none below 0, with the least squares of relative errors."""
    rows = terms / seconds[:, None]
    kept = np.ones(terms.shape[1], dtype=bool)
    factors = np.zeros(terms.shape[1])
    while True:
        factors[:] = 0.0
        factors[kept] = np.linalg.lstsq(rows[:, kept], np.ones(len(rows)), rcond=None)[0]
        if (factors >= 0).all():
            return factors
        kept[int(np.argmin(factors))] = False


def _short(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS}g}")
