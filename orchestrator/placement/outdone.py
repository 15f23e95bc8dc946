"""Why legal shapes are not in the plan."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from orchestrator.core import Role
from orchestrator.perf import Array, Kv, disaggregated, unified
from orchestrator.placement.asked import Asked
from orchestrator.placement.candidates import gangs_most
from orchestrator.placement.fleets import (
    ENOUGH,
    LONE,
    Pool,
    decode_rates,
    prefill_rates,
    quickest,
    traffic_of,
    unified_rates,
)
from orchestrator.placement.plan import Plan, Refusal
from orchestrator.placement.reasons import Reason, Violation
from orchestrator.placement.shapes import Shape


def outdone(plan: Plan) -> tuple[Refusal, ...]:
    """For each legal shape that the plan does not use: the SLO that it breaks alone, the load that
    all GPUs with it do not carry, or by how much others do more.
    """
    asked = plan.asked
    used = {crew.shape for crew in plan.chosen.fleet.crews}
    best = plan.chosen.rate_most / plan.chosen.fleet.gpus
    found: list[Refusal] = []
    for kv in Kv:
        pools = {
            role: Pool(asked, own)
            for role in Role
            if (own := [s for s in plan.legal if s.role is role and s.kv is kv])
        }
        for role, pool in pools.items():
            if role is not Role.UNIFIED and not {Role.PREFILL, Role.DECODE} <= set(pools):
                found += [_alone(asked, shape) for shape in pool.shapes]
                continue
            rates, ttft, itl = _judged(asked, pools, role)
            gangs = gangs_most(asked, pool)
            for at, shape in enumerate(pool.shapes):
                if shape not in used:
                    rate, first_s, gap_s = (float(column[at]) for column in (rates, ttft, itl))
                    seen = _Seen(rate, first_s, gap_s, int(gangs[at]))
                    found.append(Refusal(shape, _violation(asked, shape, seen, best)))
    return tuple(found)


def _judged(asked: Asked, pools: dict[Role, Pool], role: Role) -> tuple[Array, Array, Array]:
    """Requests a second of one gang, and a lone request's TTFT and ITL, with the best partner."""
    traffic, pool, slo = traffic_of(asked), pools[role], asked.slo
    if role is Role.UNIFIED:
        alone = unified(pool.grid, 1, traffic, LONE)
        return unified_rates(pool, traffic, slo), alone.ttft_s, alone.tpot_s
    prefill, decode = pools[Role.PREFILL], pools[Role.DECODE]
    count = len(pool.shapes)
    if role is Role.PREFILL:
        partner = quickest(prefill, decode, traffic, count)
        alone = disaggregated(pool.grid, 1, partner, ENOUGH, traffic, LONE)
        one = np.ones(count)
        rates = prefill_rates(prefill, np.arange(count), one, decode, traffic, slo)
        return rates, alone.ttft_s, np.zeros(count)
    partner = prefill.grid.take(np.zeros(count, dtype=np.intp))
    alone = disaggregated(partner, ENOUGH, pool.grid, 1, traffic, LONE)
    return decode_rates(prefill, decode, traffic, slo), np.zeros(count), alone.tpot_s


class _Seen(NamedTuple):
    """What a gang of a shape carries, what a lone request sees, and how many gangs fit."""

    rate: float
    ttft_s: float
    itl_s: float
    gangs: int


def _violation(asked: Asked, shape: Shape, seen: _Seen, best: float) -> Violation:
    rate, ttft_s, itl_s, gangs = seen
    slo = asked.slo
    if slo.ttft_s is not None and ttft_s > slo.ttft_s:
        return Violation(
            Reason.TTFT, f"a request alone has a TTFT of {ttft_s:.2f} s > {slo.ttft_s:g} s"
        )
    if slo.itl_s is not None and itl_s > slo.itl_s:
        return Violation(
            Reason.ITL,
            f"a request alone has an ITL of {itl_s * 1e3:.1f} ms > {slo.itl_s * 1e3:g} ms",
        )
    if asked.rate is not None and rate * gangs < asked.rate:
        return Violation(
            Reason.RATE,
            f"{gangs} such gangs on all GPUs {_DOES[shape.role]} {rate * gangs:.2f} requests/s < "
            f"{asked.rate:g}",
        )
    return Violation(
        Reason.OUTDONE,
        f"legal: {_DOES[shape.role]}s {rate / shape.gpus:.3f} requests/s a GPU within the SLO; the "
        f"plan, all of it, {best:.3f}",
    )


_DOES = {Role.UNIFIED: "serve", Role.PREFILL: "prefill", Role.DECODE: "decode"}


def _alone(asked: Asked, shape: Shape) -> Refusal:
    other = "decode" if shape.role is Role.PREFILL else "prefill"
    return Refusal(
        shape,
        Violation(Reason.PARTNER, f"no {other} gang is legal beside it on {asked.gpus} GPUs"),
    )


def grouped(refused: Sequence[Refusal]) -> list[tuple[Reason, int, Refusal]]:
    """By reason, in the order of `Reason`: how many, and the widest as an example."""
    groups: dict[Reason, list[Refusal]] = {}
    for refusal in refused:
        groups.setdefault(refusal.violation.reason, []).append(refusal)
    return [
        (reason, len(own), max(own, key=_telling))
        for reason in Reason
        if (own := groups.get(reason))
    ]


def _telling(refusal: Refusal) -> tuple[int, bool, str]:
    shape = refusal.shape
    return shape.gpus, shape.kv is Kv.BF16, shape.name
