"""The best that any fleet could do for one request alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.perf import Prediction, disaggregated, unified
from orchestrator.placement.asked import Asked, Slo
from orchestrator.placement.candidates import Candidates, candidates
from orchestrator.placement.fleets import LONE, traffic_of
from orchestrator.placement.shapes import Shape


@dataclass(frozen=True, slots=True)
class Best:
    """Least values in seconds; each may be of another fleet. Infinite where there is none."""

    ttft_s: float
    itl_s: float
    ttft_within_itl_s: float  # among fleets that keep the bound on ITL


def best_possible(asked: Asked, legal: Sequence[Shape]) -> Best:
    """What a request alone sees at best in the fleets that the nodes can hold."""
    bound = np.inf if asked.slo.itl_s is None else asked.slo.itl_s
    ttft, itl, within = [np.inf], [np.inf], [np.inf]
    for mode in candidates(replace(asked, slo=Slo()), legal):
        seen = _alone(asked, mode)
        ttft.append(float(seen.ttft_s.min()))
        itl.append(float(seen.tpot_s.min()))
        within.append(float(np.where(seen.tpot_s <= bound, seen.ttft_s, np.inf).min()))
    return Best(min(ttft), min(itl), min(within))


def _alone(asked: Asked, mode: Candidates) -> Prediction:
    traffic = traffic_of(asked)
    first, gangs = mode.first.grid.take(mode.first_at), mode.first_gangs.astype(float)
    if mode.second is None:
        return unified(first, gangs, traffic, LONE)
    second, others = mode.second.grid.take(mode.second_at), mode.second_gangs.astype(float)
    return disaggregated(first, gangs, second, others, traffic, LONE)
