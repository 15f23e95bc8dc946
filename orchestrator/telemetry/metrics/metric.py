"""What a metric is: its name with the unit last, how it adds up, and what bounds its labels."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a metric is added up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Unit(StrEnum):
    """What a metric's numbers are of."""

    NONE = ""  # things that are counted: requests, ranks, events
    SECONDS = "seconds"
    TOKENS = "tokens"
    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes_per_second"
    RATIO = "ratio"  # in [0, 1]
    WATTS = "watts"
    JOULES = "joules"
    CELSIUS = "celsius"
    HERTZ = "hertz"
    FLOPS = "flops"
    MONEY = "money"  # of the currency of `usage`


class Bound(StrEnum):
    """What keeps the values of a label few."""

    ENUM = "enum"  # those listed
    SPEC = "spec"  # names that stand in the spec
    FLEET = "fleet"  # what the fleet is built of: as many as it has hosts, GPUs, ranks


@dataclass(frozen=True, slots=True)
class Label:
    """One label; `values` are all that there can be, if they do not follow from spec or fleet."""

    name: str
    bound: Bound
    help: str
    values: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        assert (self.bound is Bound.ENUM) == bool(self.values), self.name


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of our own.

    `buckets` are a histogram's, in its unit, ascending, without the infinite one. `ray` marks what
    is handed to Ray, which puts `ray_` before the name.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    unit: Unit = Unit.NONE
    ray: bool = False

    @property
    def exported(self) -> str:
        """Its name as Prometheus knows it."""
        return f"ray_{self.name}" if self.ray else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names that its samples have."""
        if self.kind is not Kind.HISTOGRAM:
            return (self.exported,)
        return tuple(f"{self.exported}_{part}" for part in ("bucket", "sum", "count"))
