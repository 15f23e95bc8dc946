"""How many gangs a model may have, and what they are to hold: the spec of scaling."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import Role


class Day(StrEnum):
    """A day of the week, in UTC."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


@dataclass(frozen=True, slots=True)
class PoolScaling:
    """The floor and the ceiling of one pool, in gangs. A floor of 0 lets it go when all is idle."""

    role: Role
    gangs_max: int
    gangs_min: int = 1


@dataclass(frozen=True, slots=True)
class CalendarEntry:
    """Gangs that are ready from `from_h` to `until_h` of the days named, in hours of UTC.

    They are started before, by as long as a start takes. 24 is the day's end; who needs a time
    across midnight names it as two.
    """

    role: Role
    gangs_min: int
    from_h: float
    until_h: float
    days: tuple[Day, ...] = tuple(Day)


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """The SLO that the fleet is sized for, and the bounds within which it is.

    An SLO has no default: one that nobody gave is not guessed. TPOT is a request's mean ITL.
    """

    ttft_s: float
    tpot_s: float
    pools: tuple[PoolScaling, ...]  # each pool of the model once
    attainment: float = 0.99  # share of the requests that is to be within the SLO
    gpus_max: int | None = None  # of all pools together; None: their ceilings say enough
    calendar: tuple[CalendarEntry, ...] = ()
    # How long less must have been enough before a gang is let go. None: as long as a start takes,
    # but at least two minutes: whoever lets go sooner may pay more for starts than for waiting.
    dwell_s: float | None = None
    slack: float = 0.01  # share of the load by which fewer gangs must have more than enough room
    idle_s: float = 900.0  # without any request before the last gangs are let go, if floors are 0
    # How long a gang may find no node before the others are dealt as if there were no more.
    pending_s: float = 300.0
    period_s: float = 10.0  # between two decisions
