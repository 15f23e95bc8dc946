"""How the fleet is looked at while it serves: the doctor's rounds, what `why` keeps, spans."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DoctorSpec:
    """Each gateway examines the ranks that it knows, again and again, with requests of its own."""

    every_s: float | None = 600.0  # None: only when it is asked to


@dataclass(frozen=True, slots=True)
class WhySpec:
    """What gateways remember of requests, so that `r1-serve why` can tell. No prompt is in it."""

    share: float = 1.0  # of requests that are remembered, by their ids; 0: none
    requests_max: int = 4_096  # of one gateway; the oldest are forgotten
    # Views of ranks in all of them, some 200 bytes each: the more ranks, the fewer requests.
    rank_views_max: int = 200_000


@dataclass(frozen=True, slots=True)
class TracingSpec:
    """Spans of requests, by OpenTelemetry; needs the `tracing` extra."""

    endpoint: str | None = None  # of a collector's OTLP over HTTP: http://HOST:4318; None: no spans
    share: float = 0.01  # of requests whose clients have not decided that themselves
