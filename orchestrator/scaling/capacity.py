"""How many gangs of each role a load needs, by the costs that the plan predicts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from orchestrator.core import Role
from orchestrator.perf import delayed, mean_wait
from orchestrator.scaling.observation import Observation
from orchestrator.spec import StepCosts

_GANGS_FAR = 100_000  # where counting ends: more than any fleet


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One pool's gangs, as the spec has them. `start_s` is from nothing to a gang that serves."""

    role: Role
    gpus: int
    ranks: int
    costs: StepCosts
    start_s: float
    sequences_max: int  # that a rank decodes at once, whatever the SLO says


@dataclass(frozen=True, slots=True)
class Slo:
    """What the fleet is sized for."""

    ttft_s: float
    tpot_s: float
    attainment: float


def batch_of(facts: PoolFacts, slo: Slo, seen: Observation, stalled: float = 0.0) -> float:
    """Sequences that a rank may decode at once within the SLO, its KV and its own limit; 0 if the
    SLO cannot be kept. `stalled` is the share of its time that decodes stand still. Not whole: the
    SLO is on the mean of a request's steps, and a rank has one sequence more at times.
    """
    costs = facts.costs
    context = _context(seen)
    room = slo.tpot_s * (1 - stalled) - costs.step_base_s
    each_s = costs.step_request_s + costs.step_token_s * context
    if room < each_s or room <= 0:
        return 0
    batch = min(room / each_s, facts.sequences_max) if each_s > 0 else facts.sequences_max
    if seen.kv_tokens and context:
        batch = min(batch, seen.kv_tokens / context)
    return max(1.0, batch)


def decode_gangs(
    facts: PoolFacts,
    slo: Slo,
    seen: Observation,
    per_s: float,
    gangs_min: int = 1,
    ahead_s: float = math.inf,
) -> int:
    """Gangs whose ranks hold, in `ahead_s`, what is in decode now and has not ended by then, and
    what `per_s` requests a second bring until then; with its swings, those of independent arrivals.
    Without `ahead_s` what is in decode now says nothing.
    """
    if per_s <= 0:
        return 0
    if not batch_of(facts, slo, seen):
        return _unkept(facts, seen, per_s)
    costs = facts.costs
    each_s = costs.step_request_s + costs.step_token_s * _context(seen)
    steps = per_s * max(seen.output_tokens - 1, 1.0)
    now = seen.running + seen.waiting
    normal = _normal(slo)

    def enough(gangs: int) -> bool:
        ranks = gangs * facts.ranks
        stalled = _stalled(facts, seen, per_s, ranks)
        most = ranks * batch_of(facts, slo, seen, stalled)
        # A larger batch is slower, and so keeps its requests for longer: at rest the number in
        # decode is steps x (base + each x number / ranks).
        rest = 1 - stalled - steps * each_s / ranks
        if not most or rest <= 0:
            return False
        held = steps * costs.step_base_s / rest
        # Each lasts held / per_s seconds by Little's law, and may end at any moment.
        stays = math.exp(-ahead_s * per_s / held)
        mean = held + stays * (now - held)
        swings = (1 - stays) * (held + stays * now)
        # By more than those of arrivals alone, for the same reason as above.
        return mean + normal * math.sqrt(swings * (1 - stalled) / rest) <= most

    return _least(enough, gangs_min)


def _least(enough: Callable[[int], bool], first: int) -> int:
    """The least number from `first` on that is enough; what is enough stays so with more."""
    below, step = first - 1, 1
    while not enough(below + step) and below < _GANGS_FAR:
        below, step = below + step, 2 * step
    above = below + step
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above


def _unkept(facts: PoolFacts, seen: Observation, per_s: float) -> int:
    """Gangs that carry the load at their own limit, where no batch keeps the SLO."""
    batch, context = facts.sequences_max, _context(seen)
    if seen.kv_tokens and context:
        batch = max(1, min(batch, int(seen.kv_tokens / context)))
    step_s = facts.costs.step_s(batch, batch * context)
    held = per_s * max(seen.output_tokens - 1, 1.0) * step_s
    return max(1, math.ceil(held / (facts.ranks * batch)))


def _context(seen: Observation) -> float:
    """Tokens that a decode step reads for one request."""
    return seen.prompt_tokens + seen.output_tokens / 2


def _stalled(facts: PoolFacts, seen: Observation, per_s: float, ranks: int) -> float:
    if facts.role is not Role.UNIFIED:
        return 0.0
    return min(1.0, facts.costs.stall * per_s * seen.prefill_s / ranks)


def prefill_gangs(
    facts: PoolFacts,
    slo: Slo,
    seen: Observation,
    per_s: float,
    gangs_min: int = 1,
    decoding: int = 0,
) -> int:
    """Gangs at which the share of prompts that wait too long for their first token is bounded: by
    the SLO, or by what `decoding` ranks that decode can prefill of them.
    """
    if per_s <= 0 or seen.prefill_s <= 0:
        return 0
    work = per_s * seen.prefill_s  # seconds of a rank, each second
    late = max(1 - slo.attainment, min(_LATE, _SPARE * decoding / work))

    def enough(gangs: int) -> bool:
        return _keeps_ttft(facts, slo, seen, work, gangs * facts.ranks, late)

    return _least(enough, max(gangs_min, math.ceil(work / facts.ranks)))


def _keeps_ttft(
    facts: PoolFacts, slo: Slo, seen: Observation, work: float, ranks: int, late: float
) -> bool:
    busy = work / ranks
    if busy >= 1:
        return False
    if busy < _BUSY_LEAST:
        return True
    costs = facts.costs
    moved_s = costs.transfer_s(int(seen.prompt_tokens)) if facts.role is Role.PREFILL else 0.0
    # A gang's ranks step together, so a prompt waits for half of a pass even at an idle rank.
    room_s = slo.ttft_s - moved_s - 1.5 * seen.prefill_s
    if room_s <= 0:
        return busy <= _BUSY_UNKEPT
    chance = delayed(busy, ranks)
    varies = max(1.0, seen.prefill_s2 / seen.prefill_s**2)  # M/G/c beside M/D/c: 1 + cv^2
    waits_s = mean_wait(busy, ranks) * seen.prefill_s * varies / chance  # of those who wait
    return chance * math.exp(-room_s / waits_s) <= late


# Of the prompts, those that may be late at the prefill pool: routing has them prefilled where they
# are decoded (routing/ways.py). It costs the same seconds there, and a gang that waits for bursts
# none. Decode gangs get no more room for it: what it takes of their time is within what they have
# for their own swings, and it is done where there is some.
_LATE = 0.2
_SPARE = 0.03  # of the time of ranks that decode
_BUSY_LEAST = 1e-6  # nobody waits
_BUSY_UNKEPT = 0.8  # of prefill, where no fleet keeps the SLO: the queue stays short all the same


def held_gangs(facts: PoolFacts, slo: Slo, seen: Observation) -> int:
    """Gangs that hold what is in the system at this moment."""
    held = seen.running + seen.waiting
    if held <= 0:
        return 0
    batch = batch_of(facts, slo, seen) or facts.sequences_max
    return math.ceil(held / (facts.ranks * batch))


def _normal(slo: Slo) -> float:
    return _NORMAL.inv_cdf(1 - _SWINGS * (1 - slo.attainment))


_NORMAL = NormalDist()
# Of what the SLO leaves for misses: the rest is for what nobody foresees, the start of a slope.
_SWINGS = 0.5


def keeps_slo(facts: Mapping[Role, PoolFacts], slo: Slo, seen: Observation) -> bool:
    """Whether some fleet keeps the SLO for the mean request."""
    for each in facts.values():
        decodes = each.role is not Role.PREFILL
        if decodes and seen.output_tokens and not batch_of(each, slo, seen):
            return False
        if each.role is not Role.DECODE and 1.5 * seen.prefill_s >= slo.ttft_s:
            return False
    return True
