"""From the gangs that each pool needs to those it may have: floors, ceilings, GPUs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core import Role

Gangs = Mapping[Role, int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one pool, at one moment."""

    gangs_min: int
    gangs_max: int
    gpus: int  # of a gang


def fit(needs: Gangs, bounds: Mapping[Role, Bounds], gpus_max: int | None) -> dict[Role, int]:
    """Gangs of each pool within all bounds, whole ones only.

    Where one pool may not have what it needs, the others get no more than they then can use: a
    prefill gang is of no use to requests that nobody decodes, and the other way round.
    """
    ceilings = {role: each.gangs_max for role, each in bounds.items()}
    found = _fed(needs, bounds, ceilings)
    if gpus_max is None or _gpus(found, bounds) <= gpus_max:
        return found
    first, *others = sorted(bounds)
    best, best_rank = found, (-1.0, 0, 0)
    for gangs in range(bounds[first].gangs_min, found[first] + 1):
        tried = {first: gangs}
        left = gpus_max - gangs * bounds[first].gpus
        for role in others:
            tried[role] = min(found[role], left // bounds[role].gpus)
        if any(tried[role] < bounds[role].gangs_min for role in tried):
            continue
        tried = _fed(needs, bounds, tried)
        rank = (_served(needs, tried), -_gpus(tried, bounds), gangs)
        if rank > best_rank:
            best, best_rank = tried, rank
    return best


def _fed(needs: Gangs, bounds: Mapping[Role, Bounds], ceilings: Gangs) -> dict[Role, int]:
    """What is needed, within the ceilings; if one of them binds, the others follow it."""
    capped = {role: min(need, ceilings[role]) for role, need in needs.items()}
    served = _served(needs, capped)
    return {
        role: max(bounds[role].gangs_min, min(capped[role], math.ceil(need * served)))
        for role, need in needs.items()
    }


def _served(needs: Gangs, gangs: Gangs) -> float:
    """The share of the load that the scarcest pool carries."""
    shares = [min(1.0, gangs[role] / need) for role, need in needs.items() if need > 0]
    return min(shares, default=1.0)


def _gpus(gangs: Gangs, bounds: Mapping[Role, Bounds]) -> int:
    return sum(count * bounds[role].gpus for role, count in gangs.items())
