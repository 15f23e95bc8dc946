"""Every fleet that the nodes could hold, with bounds on what it can do, as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.core import Role
from orchestrator.perf import Array, Kv, Load, OpenLoop, Traffic, disaggregated, unified
from orchestrator.placement.asked import Asked, Objective
from orchestrator.placement.fleets import (
    ENOUGH,
    LONE,
    Crew,
    Flags,
    Fleet,
    Index,
    Pool,
    decode_rates,
    in_blocks,
    prefill_rates,
    quickest,
    traffic_of,
    unified_rates,
)
from orchestrator.placement.shapes import Shape

_SLACK = 1.0001  # of bounds, for what rounding does to numbers that should be equal
_PAIRS_MAX = 200_000
_KEEP = 0.8  # beyond that many pairs a decode crew is left out if another has no more GPUs
# and carries its load with so much to spare


Crews = tuple[Pool, Index, Index]  # indices of shapes, and gangs of each


@dataclass(frozen=True)
class Candidates:
    """Fleets of one mode: gangs of `first`, which prefills or does both, and of `second`.

    `rate_most` is at least what a fleet carries within the SLO, and `delay_least` at most the time
    of a request at the rate asked for, or alone; both of shape [fleets]. `delay_least` is 0 where
    the objective does not ask for it.
    """

    first: Pool
    first_at: Index
    first_gangs: Index
    second: Pool | None
    second_at: Index
    second_gangs: Index
    rate_most: Array
    delay_least: Array

    @property
    def kinds(self) -> Index:
        """A number for the kind of each fleet."""
        own: Index = self.first.kinds[self.first_at]
        if self.second is None:
            return own
        kinds: Index = own * (self.second.kinds.max() + 1) + self.second.kinds[self.second_at]
        return kinds

    @property
    def gpus(self) -> Index:
        """Of each fleet."""
        own: Index = (self.first.gpus[self.first_at] * self.first_gangs).astype(np.intp)
        if self.second is None:
            return own
        other: Index = (self.second.gpus[self.second_at] * self.second_gangs).astype(np.intp)
        return own + other

    def fleet(self, at: int) -> Fleet:
        """The fleet at an index."""
        crews = [Crew(self.first.shapes[self.first_at[at]], int(self.first_gangs[at]))]
        if self.second is not None:
            crews.append(Crew(self.second.shapes[self.second_at[at]], int(self.second_gangs[at])))
        return Fleet(tuple(crews))


def candidates(asked: Asked, legal: Sequence[Shape]) -> Iterator[Candidates]:
    """All fleets of legal shapes that the GPUs suffice for, by mode and KV format.

    Two crews share a KV format, and whether there is an MTP layer, since they share the cache.
    """
    traffic = traffic_of(asked)
    for kv in Kv:
        of_role = {
            role: [shape for shape in legal if shape.role is role and shape.kv is kv]
            for role in Role
        }
        if of_role[Role.UNIFIED]:
            yield _unified(asked, Pool(asked, of_role[Role.UNIFIED]), traffic)
        if of_role[Role.PREFILL] and of_role[Role.DECODE]:
            prefill, decode = (Pool(asked, of_role[r]) for r in (Role.PREFILL, Role.DECODE))
            yield from _pairs(asked, prefill, decode, traffic)


def gangs_most(asked: Asked, pool: Pool) -> Index:
    """How many gangs of each shape the nodes hold without others."""
    whole = asked.full_nodes // pool.nodes
    part = asked.gpus // pool.gpus
    most: Index = np.where(pool.gpus < asked.gpus_per_node, part, whole).astype(np.intp)
    return most


def _counted(most: Index) -> tuple[Index, Index]:
    """Indices of shapes with each number of gangs from 1 to `most`."""
    at = np.repeat(np.arange(len(most)), most)
    gangs = np.concatenate([np.arange(1, count + 1) for count in most] or [np.arange(0)])
    return at, gangs.astype(np.intp)


def _unified(asked: Asked, pool: Pool, traffic: Traffic) -> Candidates:
    at, gangs = _counted(gangs_most(asked, pool))
    rates = unified_rates(pool, traffic, asked.slo)
    delay = np.zeros(len(at))
    if asked.objective is Objective.LATENCY:

        def delays(block: Index) -> Array:
            grid, many = pool.grid.take(at[block]), gangs[block].astype(float)
            seen = unified(grid, many, traffic, _load(asked))
            return seen.ttft_s + seen.tpot_s * _gaps(traffic)

        delay = in_blocks(len(at), delays)
    most = rates[at] * gangs * _SLACK
    return Candidates(pool, at, gangs, None, at, gangs, most, delay / _SLACK)


def _load(asked: Asked) -> Load:
    return LONE if asked.rate is None else OpenLoop(asked.rate)


def _gaps(traffic: Traffic) -> float:
    return max(float(traffic.output_tokens) - 1, 1.0)


def _pairs(asked: Asked, prefill: Pool, decode: Pool, traffic: Traffic) -> Iterator[Candidates]:
    prefill = _undominated(asked, prefill, decode, traffic)
    p_at, p_gangs = _counted(gangs_most(asked, prefill))
    d_at, d_gangs = _counted(gangs_most(asked, decode))
    if not _any_fit(asked, prefill, decode):
        return
    d_rate = decode_rates(prefill, decode, traffic, asked.slo)[d_at] * d_gangs
    p_rate = prefill_rates(prefill, p_at, p_gangs.astype(float), decode, traffic, asked.slo)
    first, waits = np.zeros(len(p_at)), np.zeros(len(d_at))  # until the first token, and after it
    if asked.objective is Objective.LATENCY:
        first, waits = _delays(asked, (prefill, p_at, p_gangs), (decode, d_at, d_gangs), traffic)
    p_keep, d_keep = np.arange(len(p_at)), np.arange(len(d_at))
    if len(p_at) * len(d_at) > _PAIRS_MAX:
        p_keep = _uncrowded(prefill.gpus[p_at] * p_gangs, prefill.drafts[p_at], p_rate, first)
        d_keep = _uncrowded(decode.gpus[d_at] * d_gangs, decode.drafts[d_at], d_rate, waits)
    rows, columns = np.nonzero(
        _fit(
            asked, (prefill, p_at[p_keep], p_gangs[p_keep]), (decode, d_at[d_keep], d_gangs[d_keep])
        )
        & (prefill.drafts[p_at[p_keep]][:, None] == decode.drafts[d_at[d_keep]])
    )
    if not len(rows):
        return
    rows, columns = p_keep[rows], d_keep[columns]
    yield Candidates(
        prefill,
        p_at[rows],
        p_gangs[rows],
        decode,
        d_at[columns],
        d_gangs[columns],
        np.minimum(p_rate[rows], d_rate[columns]) * _SLACK,
        (first[rows] + waits[columns]) / _SLACK,
    )


def _any_fit(asked: Asked, prefill: Pool, decode: Pool) -> bool:
    """Whether the smallest of each fit together."""
    crews = [
        (pool, np.array([np.argmin(pool.gpus)]), np.ones(1, dtype=np.intp))
        for pool in (prefill, decode)
    ]
    return bool(_fit(asked, crews[0], crews[1]).any())


def _delays(asked: Asked, first: Crews, second: Crews, traffic: Traffic) -> tuple[Array, Array]:
    """At least the time to the first token by the crews that prefill, and that from it to the last
    token by those that decode, each with partners that are never the bottleneck.
    """
    (prefill, p_at, p_gangs), (decode, d_at, d_gangs) = first, second
    fastest, load = quickest(prefill, decode, traffic, 1), _load(asked)

    def until_first(block: Index) -> Array:
        grid, many = prefill.grid.take(p_at[block]), p_gangs[block].astype(float)
        return disaggregated(grid, many, fastest, ENOUGH, traffic, load).ttft_s

    def until_last(block: Index) -> Array:
        partner = prefill.grid.take(np.zeros(len(block), dtype=np.intp))
        grid, many = decode.grid.take(d_at[block]), d_gangs[block].astype(float)
        return disaggregated(partner, ENOUGH, grid, many, traffic, load).tpot_s * _gaps(traffic)

    return in_blocks(len(p_at), until_first), in_blocks(len(d_at), until_last)


def _fit(asked: Asked, first: Crews, second: Crews) -> Flags:
    """Which of [first crews, second crews] the GPUs suffice for together."""
    gpus, whole = [], []
    for pool, at, gangs in (first, second):
        gpus.append(pool.gpus[at] * gangs)
        whole.append(np.where(pool.gpus[at] < asked.gpus_per_node, 0, pool.nodes[at] * gangs))
    enough: Flags = np.logical_and(
        gpus[0][:, None] + gpus[1] <= asked.gpus,
        whole[0][:, None] + whole[1] <= asked.full_nodes,
    )
    return enough


def _undominated(asked: Asked, prefill: Pool, decode: Pool, traffic: Traffic) -> Pool:
    """Without shapes that another of as many GPUs beats in the time of one prompt, in prompts a
    second and in simplicity: no fleet is better for having them.
    """
    shape = decode.grid.take(np.zeros(len(prefill.shapes), dtype=np.intp))
    seen = disaggregated(prefill.grid, 1, shape, ENOUGH, traffic, OpenLoop(1e-6))
    work = seen.prefill_load / seen.request_rate
    best: list[int] = []
    order = sorted(
        range(len(prefill.shapes)),
        key=lambda at: (
            seen.ttft_s[at],
            work[at],
            prefill.shapes[at].effort,
            prefill.shapes[at].name,
        ),
    )
    for at in order:
        own = prefill.shapes[at]
        if not any(
            prefill.gpus[other] == prefill.gpus[at]
            and prefill.drafts[other] == prefill.drafts[at]
            and work[other] <= work[at]
            and prefill.shapes[other].effort <= own.effort
            for other in best
        ):
            best.append(at)
    return Pool(asked, [prefill.shapes[at] for at in sorted(best)])


def _uncrowded(gpus: Index, drafts: Flags, rate: Array, waits: Array) -> Index:
    """Indices of crews without those that others of no more GPUs beat by far, in load and delay."""
    kept = []
    for flag in (False, True):
        own = np.nonzero(drafts == flag)[0]
        for count in np.unique(gpus[own]):
            same = own[gpus[own] == count]
            no_more = own[gpus[own] <= count]
            good = (rate[same] >= _KEEP * rate[no_more].max()) | (
                (waits[same] > 0) & (waits[same] <= waits[no_more].min() / _KEEP)
            )
            kept.append(same[good])
    return np.sort(np.concatenate(kept))
