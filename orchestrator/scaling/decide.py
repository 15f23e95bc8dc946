"""How many gangs each pool is to have: one decision for all pools of a model, with its reasons.

More is asked for as soon as it is needed, or will be by the time that a gang takes to start; less
only when less has been enough for the whole dwell. Targets count every gang that there is, ready,
starting or waiting for a node, so nothing is asked for twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.core import Role
from orchestrator.scaling import capacity
from orchestrator.scaling.capacity import PoolFacts, Slo
from orchestrator.scaling.fit import Bounds, fit
from orchestrator.scaling.forecast import Forecast, Line, begun, line_of, with_window
from orchestrator.scaling.observation import WINDOW_S, Observation
from orchestrator.spec import Day, ScalingSpec

_DWELL_MIN_S = 120.0
_DAY_S = 86_400.0
_WEEK_S = 7 * _DAY_S
_PATIENCE_MAX = 4.0
_SORRY = 2.0  # starts within which a gang that was let go may not be missed
# Starts, times the patience: what happens twice within so many is no chance, and after so many
# without it less patience is tried.
_OFTEN, _CALM = 8.0, 16.0
_LEARN_S = 3_000.0  # of being short, after which the load is taken to be twice as large
_HEADROOM_MAX = 0.5
_SHORT_HELD_S = 600.0  # until it is tried again whether there are nodes


class Reason(StrEnum):
    """Why a pool has the target that it has."""

    STEADY = "steady"
    LOAD = "load"  # the load of now needs more
    FORECAST = "forecast"  # the load by the time a gang has started does
    HELD = "held"  # what is running and waiting does
    CALENDAR = "calendar"
    FLOOR = "floor"
    WOKEN = "woken"  # a request has come while there was no gang
    CEILING = "ceiling"  # more is needed than gangs_max or gpus_max allow
    NO_NODES = "no_nodes"  # gangs have found no node for long: the pools share what there is
    QUIET = "quiet"  # less has been enough for the whole dwell
    DWELL = "dwell"  # less would be enough, but not for long enough yet
    IDLE = "idle"  # no request for long: the last gangs go


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change: the spec of scaling, and the facts of each pool."""

    spec: ScalingSpec
    pools: Mapping[Role, PoolFacts]

    @property
    def slo(self) -> Slo:
        """What the fleet is sized for."""
        return Slo(self.spec.ttft_s, self.spec.tpot_s, self.spec.attainment)


@dataclass(frozen=True, slots=True)
class Gangs:
    """Those of one pool, without the ones that are being let go."""

    ready: int = 0
    starting: int = 0  # they have their nodes
    pending: int = 0  # they have none yet

    @property
    def asked(self) -> int:
        """All of them."""
        return self.ready + self.starting + self.pending


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision is made from. `week_s` is the time since Monday 00:00 UTC."""

    load: Observation
    pools: Mapping[Role, Gangs]
    week_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is remembered of a pool."""

    needs: tuple[tuple[float, int], ...] = ()  # instant and need, falling: the most since each
    pending_since: float | None = None
    down_at: float | None = None  # when gangs were let go last, until they are missed
    sorry_at: float | None = None  # when they were missed last
    patience: float = 1.0  # times the dwell; doubles when that happens twice in a row


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered between two decisions."""

    forecast: Forecast | None = None
    sampled_at: float | None = None
    pools: Mapping[Role, PoolState] = field(default_factory=dict)
    idle_since: float | None = None
    gpus_known: int | None = None  # as many as there are, as far as is known
    gpus_known_until: float = 0.0
    load: Observation = field(default_factory=Observation)  # means that were known before
    headroom: float = 0.0  # share of the load, learnt from how often gangs were short
    decided_at: float | None = None
    learns_at: float = 0.0  # the first fleet was nobody's choice


@dataclass(frozen=True, slots=True)
class Target:
    """One pool's decision: how many gangs it is to have, and what it needs by itself."""

    role: Role
    gangs: int
    reason: Reason
    needed: int


@dataclass(frozen=True, slots=True)
class Decision:
    """All pools', made at once."""

    targets: tuple[Target, ...]
    per_s: float  # requests, now
    slo_kept: bool  # False: no fleet could keep it for the mean request

    def gangs(self) -> dict[Role, int]:
        """The targets."""
        return {target.role: target.gangs for target in self.targets}


def decide(plan: Plan, state: State, seen: Seen, now: float) -> tuple[Decision, State]:
    """The targets of all pools at `now`, and what to remember. Takes well below a millisecond."""
    load = _filled(seen.load, state.load)
    forecast, sampled_at = state.forecast, state.sampled_at
    if sampled_at is None:
        sampled_at = now  # the first window has not passed yet
    elif now >= sampled_at + WINDOW_S:
        rate, sampled_at = load.requests_per_s, now
        forecast = begun(now, rate) if forecast is None else with_window(forecast, now, rate)
    line = Line(load.requests_per_s) if forecast is None else line_of(forecast, now)
    headroom = _headroom(plan, state, seen, load, now)
    idle_since = _idle_since(state, load, now)
    idle = idle_since is not None and now >= idle_since + plan.spec.idle_s
    known, until, pools = _nodes(plan, state, seen, now)
    wants = {
        role: _want(plan, facts, seen, load, line, idle, headroom)
        for role, facts in plan.pools.items()
    }
    bounds = {role: want.bounds for role, want in wants.items()}
    needs = {role: want.needed for role, want in wants.items()}
    gpus_max = plan.spec.gpus_max
    scarce = known is not None and (gpus_max is None or known < gpus_max)
    fitted = fit(needs, bounds, known if scarce else gpus_max)
    easy = fit({role: want.with_slack for role, want in wants.items()}, bounds, gpus_max)
    targets = []
    for role, want in sorted(wants.items()):
        asked, was = seen.pools[role].asked, pools[role]
        before = was.needs or ((now, asked),)  # what is there is taken to be needed
        dwell = dwell_s(plan, role) * was.patience
        needs_of = _remember(before, now, max(fitted[role], easy[role]), dwell)
        gangs, reason = _target(asked, fitted[role], needs_of[0][1], want, idle=idle, scarce=scarce)
        targets.append(Target(role, gangs, reason, want.needed))
        pools[role] = _learned(
            replace(was, needs=needs_of), gangs - asked, plan.pools[role].start_s, now
        )
    decision = Decision(tuple(targets), line.per_s, capacity.keeps_slo(plan.pools, plan.slo, load))
    learns_at = state.learns_at
    if state.decided_at is None:
        learns_at = now + _SORRY * max(facts.start_s for facts in plan.pools.values())
    return decision, State(
        forecast, sampled_at, pools, idle_since, known, until, load, headroom, now, learns_at
    )


def dwell_s(plan: Plan, role: Role) -> float:
    """How long less must have been enough."""
    if plan.spec.dwell_s is not None:
        return plan.spec.dwell_s
    return max(_DWELL_MIN_S, plan.pools[role].start_s)


# --- what a pool wants ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Want:
    needed: int
    with_slack: int  # by a load that is larger by the slack
    reason: Reason
    bounds: Bounds


def _want(
    plan: Plan,
    facts: PoolFacts,
    seen: Seen,
    load: Observation,
    line: Line,
    idle: bool,
    headroom: float,
) -> _Want:
    floor = _floor(plan, facts.role, seen.week_s, facts.start_s)
    own = next(each for each in plan.spec.pools if each.role is facts.role)
    bounds = Bounds(floor, own.gangs_max, facts.gpus)
    some = not idle and (load.requests_per_s > 0 or load.running > 0 or load.waiting > 0)
    # No margin for the line's error: the swings that `capacity` plans for are larger.
    now_per_s = ahead_per_s = 0.0
    if not idle:  # else whatever came before
        now_per_s = line.per_s * (1 + headroom)
        ahead_per_s = line.ahead(facts.start_s + plan.spec.period_s) * (1 + headroom)
    woken = some and seen.pools[facts.role].asked == 0
    load_per_s = now_per_s
    if facts.role is not Role.PREFILL:
        load_per_s = min(now_per_s, ahead_per_s)  # what is there now is counted by itself
    by = {
        Reason.WOKEN: 1 if woken else 0,
        Reason.LOAD: _needed(plan, facts, seen, load, load_per_s),
    }
    if ahead_per_s > load_per_s:  # a lower rate never needs more
        by[Reason.FORECAST] = _needed(plan, facts, seen, load, ahead_per_s)
    if facts.role is not Role.PREFILL:
        by[Reason.HELD] = capacity.held_gangs(facts, plan.slo, load)
        if some and not load.output_tokens:  # none has ended: nobody knows how long they take
            by[Reason.HELD] = max(by[Reason.HELD], seen.pools[facts.role].asked)
    reason = max(by, key=lambda each: by[each])
    least = 0 if idle and floor == 0 else min(1, own.gangs_max)
    if floor == 0 and not some and seen.pools[facts.role].asked == 0:
        least = 0  # nobody has come yet
    needed = max(by[reason], least)
    if floor > needed:
        needed = floor
        reason = Reason.CALENDAR if floor > own.gangs_min else Reason.FLOOR
    larger = max(load_per_s, ahead_per_s) * (1 + plan.spec.slack)
    with_slack = max(needed, _needed(plan, facts, seen, load, larger))
    return _Want(needed, with_slack, reason, bounds)


def _needed(plan: Plan, facts: PoolFacts, seen: Seen, load: Observation, per_s: float) -> int:
    """Gangs of one pool for a rate, by the time that a gang takes to start."""
    gangs = 0
    if facts.role is not Role.DECODE:
        decoding = 0
        if facts.role is Role.PREFILL:
            decoding = seen.pools[Role.DECODE].ready * plan.pools[Role.DECODE].ranks
        gangs = capacity.prefill_gangs(facts, plan.slo, load, per_s, decoding=decoding)
    if facts.role is not Role.PREFILL and load.output_tokens > 0:
        ahead_s = facts.start_s + plan.spec.period_s
        gangs = capacity.decode_gangs(facts, plan.slo, load, per_s, max(gangs, 1), ahead_s)
    return gangs


def _floor(plan: Plan, role: Role, week_s: float, start_s: float) -> int:
    """Of the spec, and of each calendar entry that holds now or by when a gang has started."""
    own = next(each for each in plan.spec.pools if each.role is role)
    floors = [own.gangs_min]
    for entry in plan.spec.calendar:
        if entry.role is not role:
            continue
        for at, day in enumerate(Day):
            begins = (at * _DAY_S + entry.from_h * 3600 - start_s) % _WEEK_S
            lasts_s = (entry.until_h - entry.from_h) * 3600 + start_s
            if day in entry.days and (week_s - begins) % _WEEK_S < lasts_s:
                floors.append(entry.gangs_min)
    return max(floors)


def _filled(load: Observation, before: Observation) -> Observation:
    """The observation, with means from before where it has none: a gateway that is new."""
    names = ("prefill_s", "prefill_s2", "prompt_tokens", "output_tokens", "kv_tokens")
    missing = {name: getattr(before, name) for name in names if not getattr(load, name)}
    return replace(load, **missing) if missing else load


def _headroom(plan: Plan, state: State, seen: Seen, load: Observation, now: float) -> float:
    """The share by which the load is taken to be larger than it looks: grows while the ready gangs
    hold more than keeps the SLO, and shrinks else, at rest where that is as seldom as the SLO says.

    So a load that jumps oftener than a line foresees, or costs that are too low, are made up for.
    Nodes that there are not are no reason to ask for more.
    """
    if state.decided_at is None or now < state.learns_at:
        return 0.0
    if state.gpus_known is not None or any(gangs.pending for gangs in seen.pools.values()):
        return state.headroom
    short = any(
        0 < seen.pools[role].ready < capacity.held_gangs(facts, plan.slo, load)
        for role, facts in plan.pools.items()
        if role is not Role.PREFILL
    )
    share = 1 - plan.slo.attainment
    part = min(now - state.decided_at, WINDOW_S) / _LEARN_S
    change = part * (1 - share) if short else -part * share
    return min(max(0.0, state.headroom + change), _HEADROOM_MAX)


def _idle_since(state: State, load: Observation, now: float) -> float | None:
    if load.requests_per_s > 0 or load.running > 0 or load.waiting > 0:
        return None
    return now if state.idle_since is None else state.idle_since


# --- from wants to targets -----------------------------------------------------------------------


def _remember(
    needs: tuple[tuple[float, int], ...], now: float, need: int, dwell: float
) -> tuple[tuple[float, int], ...]:
    """The falling needs of the dwell; the first is the most of it."""
    kept = [(at, most) for at, most in needs if at > now - dwell and most > need]
    return (*kept, (now, need))


def _target(
    asked: int, fitted: int, most: int, want: _Want, *, idle: bool, scarce: bool
) -> tuple[int, Reason]:
    short = fitted < want.needed
    if fitted > asked:
        return fitted, Reason.CEILING if short else want.reason
    if fitted == asked:
        if short:
            return asked, Reason.NO_NODES if scarce else Reason.CEILING
        return asked, Reason.STEADY
    if scarce and short:
        return fitted, Reason.NO_NODES
    if idle and fitted == 0:
        return 0, Reason.IDLE
    if most < asked:
        return max(most, fitted), Reason.QUIET
    return asked, Reason.DWELL


def _learned(state: PoolState, more: int, start_s: float, now: float) -> PoolState:
    """The pool's state with a patience that has grown if letting go was a mistake again: a gang
    that is missed soon after would have been cheaper, or nearly so, than the start of another.

    A load that swings a little slower than the dwell would else be followed for ever. Once is
    chance, and patience for it costs more than it saves.
    """
    down_at, sorry_at, patience = state.down_at, state.sorry_at, state.patience
    if down_at is not None and more > 0 and now < down_at + _SORRY * start_s:
        if sorry_at is not None and now < sorry_at + _OFTEN * start_s * patience:
            patience = min(_PATIENCE_MAX, 2 * patience)
        down_at, sorry_at = None, now
    elif patience > 1 and sorry_at is not None and now >= sorry_at + _CALM * start_s * patience:
        sorry_at, patience = now, patience / 2
    if more < 0:
        down_at = now
    return replace(state, down_at=down_at, sorry_at=sorry_at, patience=patience)


def _nodes(
    plan: Plan, state: State, seen: Seen, now: float
) -> tuple[int | None, float, dict[Role, PoolState]]:
    """GPUs that there are, if gangs have found none for long, until when that is believed."""
    pools, waits = {}, False
    for role in plan.pools:
        was = state.pools.get(role, PoolState())
        since = None
        if seen.pools[role].pending:
            since = now if was.pending_since is None else was.pending_since
            waits = waits or now >= since + plan.spec.pending_s
        pools[role] = replace(was, pending_since=since)
    placed = sum(
        (gangs.ready + gangs.starting) * plan.pools[role].gpus for role, gangs in seen.pools.items()
    )
    if waits:
        return placed, now + _SHORT_HELD_S, pools
    if state.gpus_known is not None and now < state.gpus_known_until:
        return max(placed, state.gpus_known), state.gpus_known_until, pools
    return None, 0.0, pools
