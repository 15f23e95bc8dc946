"""Whether a gang is alive: one process less, silence, or no progress with work in hand: dead."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """What the watch made of an observation."""

    WORKING = "working"
    IDLE = "idle"
    UNHEARD = "unheard"  # it does not answer, but not for long
    RANK_EXITED = "rank_exited"  # a process of the gang ended: the gang fails as one
    STUCK = "stuck"  # requests in flight and no engine step for `stuck_after_s`
    CUT_OFF = "cut_off"  # no answer for `cut_off_after_s`: frozen, or the way to it is broken


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each kind of standstill is borne."""

    stuck_after_s: float
    cut_off_after_s: float


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one part of a gang, a rank or a node: `steps` grows with each engine step,
    `heard` says whether it answered, `exited` names a dead process.
    """

    requests: int = 0
    steps: int = 0
    heard: bool = True
    exited: str | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """What the watch remembers of that part: since when, and at which step, it has made no
    progress, and since when it does not answer.
    """

    steps: int = -1
    still_since: float | None = None
    unheard_since: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the gang is to be replaced, and why."""

    dead: bool
    reason: Reason
    cause: str = ""


def watch(limits: Limits, state: Watch, seen: Observation, now: float) -> tuple[Verdict, Watch]:
    """Judges a gang by what was seen of a part of it at `now`.

    An engine's own health endpoint is not asked: it answers 200 while a rank is frozen. What counts
    is that steps advance while requests are in flight.
    """
    if seen.exited is not None:
        return Verdict(True, Reason.RANK_EXITED, seen.exited), state
    if not seen.heard:
        return _unheard(limits, state, now)
    if seen.requests == 0:
        return Verdict(False, Reason.IDLE), Watch(seen.steps)
    if seen.steps != state.steps or state.still_since is None:
        return Verdict(False, Reason.WORKING), Watch(seen.steps, now)
    if now >= state.still_since + limits.stuck_after_s:
        count = f"{seen.requests} request{'s' if seen.requests > 1 else ''}"
        cause = f"{count} in flight and no engine step for {limits.stuck_after_s:g} s"
        return Verdict(True, Reason.STUCK, cause), state
    return Verdict(False, Reason.WORKING), Watch(state.steps, state.still_since)


def _unheard(limits: Limits, state: Watch, now: float) -> tuple[Verdict, Watch]:
    since = now if state.unheard_since is None else state.unheard_since
    state = Watch(state.steps, state.still_since, since)
    if now >= since + limits.cut_off_after_s:
        cause = f"no answer for {limits.cut_off_after_s:g} s"
        return Verdict(True, Reason.CUT_OFF, cause), state
    return Verdict(False, Reason.UNHEARD), state
