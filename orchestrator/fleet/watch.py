"""Whether a gang is alive: one process less, or no progress with work in hand, and it is dead."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """What the watch made of an observation."""

    WORKING = "working"
    IDLE = "idle"
    RANK_EXITED = "rank_exited"  # a process of the gang ended: the gang fails as one
    STUCK = "stuck"  # requests in flight and no engine step for `stuck_after_s`


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a gang: `steps` grows with each step, `exited` names a dead process."""

    requests: int
    steps: int
    exited: str | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """What the watch remembers: since when, and at which step, the gang has made no progress."""

    steps: int = -1
    still_since: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the gang is to be replaced, and why."""

    dead: bool
    reason: Reason
    cause: str = ""


def watch(
    stuck_after_s: float, state: Watch, seen: Observation, now: float
) -> tuple[Verdict, Watch]:
    """Judges a gang by what was seen of it at `now`.

    An engine's own health endpoint is not asked: it answers 200 while a rank is frozen. What counts
    is that steps advance while requests are in flight.
    """
    if seen.exited is not None:
        return Verdict(True, Reason.RANK_EXITED, seen.exited), state
    if seen.requests == 0:
        return Verdict(False, Reason.IDLE), Watch(seen.steps, None)
    if seen.steps != state.steps or state.still_since is None:
        return Verdict(False, Reason.WORKING), Watch(seen.steps, now)
    if now >= state.still_since + stuck_after_s:
        cause = f"{seen.requests} requests in flight and no engine step for {stuck_after_s:g} s"
        return Verdict(True, Reason.STUCK, cause), state
    return Verdict(False, Reason.WORKING), state
