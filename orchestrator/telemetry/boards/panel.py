"""What a board is: panels, each with its queries, its unit and why it may have nothing to show."""

from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    """How a panel shows its numbers."""

    SERIES = "series"  # over time
    NOW = "now"  # the last value of each series, large
    TABLE = "table"  # the last value of each series, a row each


class Show(StrEnum):
    """What the numbers are, by Grafana's ids of units."""

    NUMBER = "short"
    PER_SECOND = "ops"
    SECONDS = "s"
    RATIO = "percentunit"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    WATTS = "watt"
    CELSIUS = "celsius"
    PERCENT = "percent"
    HERTZ = "hertz"
    MONEY = "none"  # of the currency of `usage`, which only the spec knows


@dataclass(frozen=True, slots=True)
class Query:
    """One query and what its series are called, with `{{label}}` of theirs."""

    promql: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `absent` says, in a sentence, of what a fleet has none of these series."""

    title: str
    queries: tuple[Query, ...]
    show: Show
    help: str
    absent: str
    shape: Shape = Shape.SERIES
    wide: bool = False  # takes the whole width
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """One board; `uid` is the same for ever, since links and pushes find it by that."""

    uid: str
    title: str
    help: str
    panels: tuple[Panel, ...]
