"""What a load test measured: the contract between the generator and everything that reads it.

One JSON file a run. Times are seconds, from the run's start where they are instants. A histogram is
`core.Histogram`'s buckets, so that windows, workers and runs can be added up.
"""

import enum

import msgspec

from orchestrator.core import Histogram

VERSION = 1


class Latency(enum.StrEnum):
    """What is measured of a stream, from the instant it was *due*: a late generator or a stalled
    server cannot hide what waits.
    """

    TTFT = "ttft"  # to the first token, of either phase
    FIRST_ANSWER = "first_answer"  # to the first token of the answer
    ITL_THINKING = "itl_thinking"  # between two pieces of a thought
    ITL_ANSWER = "itl_answer"
    TPOT_THINKING = "tpot_thinking"  # a stream's mean time for a token, without the first
    TPOT_ANSWER = "tpot_answer"
    E2E = "e2e"


class Bottleneck(enum.StrEnum):
    """What kept a window from being what was asked for."""

    NONE = "none"
    GENERATOR = "generator"  # the loop was late, so that the latencies are partly its own


class Counts(msgspec.Struct):
    """Buckets of `core.Histogram`: number to count."""

    count: int
    total: float
    most: float
    buckets: dict[int, int]

    @staticmethod
    def of(histogram: Histogram) -> "Counts":
        """A copy of what it holds now."""
        return Counts(histogram.count, histogram.total, histogram.most, dict(histogram.buckets))

    def histogram(self) -> Histogram:
        """What it was made of."""
        return Histogram(self.count, self.total, self.most, dict(self.buckets))


class Slice(msgspec.Struct):
    """A part of a window, for intervals: neighbours in time are not independent, slices nearly."""

    due: int  # requests that were due in it
    good: int  # of them, those that ended without an error and within the SLO
    ended: int = 0  # of them, those that were read to the end
    ttft_s: float = 0.0  # over those that ended, the sum of TTFT
    tpot_s: float = 0.0  # and the sum of each one's mean time for a token


class Tokens(msgspec.Struct):
    """As the server's `usage` says."""

    prompt: int = 0
    cached: int = 0  # of the prompt
    thinking: int = 0
    answer: int = 0
    asked_prompt: int = 0  # of the same requests, what they should have had; 0: not known


class Window(msgspec.Struct):
    """One steady stretch of load: of a find-capacity's steps, one; of a shape, a piece of it."""

    offered_per_s: float  # requests per second asked for
    begin_s: float
    end_s: float
    due: int
    ended: int  # read to the end, with an answer
    good: int
    errors: dict[str, int]  # by class: "http_429", "connection", "cut", "timeout", ...
    latencies: dict[Latency, Counts]
    tokens: Tokens
    slices: list[Slice]
    concurrency: float  # mean number of open streams
    lag: Counts  # of the generator's event loop
    late: Counts  # a request's sending after it was due
    bottleneck: Bottleneck = Bottleneck.NONE
    server: dict[str, float] = {}  # means of the server's own metrics over the window, by name


class Slo(msgspec.Struct):
    """Bounds of a stream, in seconds; None is unbounded. `share` of all due must keep them."""

    ttft_s: float | None
    itl_s: float | None  # of the mean time for a token of a stream, both phases
    e2e_s: float | None = None
    share: float = 0.99


class Verdict(enum.StrEnum):
    """What a search for the capacity came to."""

    FOUND = "found"  # the interval is as narrow as was asked for
    WIDE = "wide"  # it is not: the windows ended first
    AT_LEAST = "at_least"  # nothing broke: the generator or the search's own limit came first
    NOTHING_HOLDS = "nothing_holds"  # attainment is below its share at the least load too


class Capacity(msgspec.Struct):
    """What `find-capacity` concludes, in requests per second at the run's mix."""

    verdict: Verdict
    per_s: float  # 0 if nothing holds
    low_per_s: float  # 95 % interval
    high_per_s: float | None  # None: not reached
    reason: str  # why the search stopped


class Result(msgspec.Struct):
    """One run."""

    version: int
    began_at: str  # ISO 8601, UTC
    url: str
    model: str
    workload: str  # name, or the trace's file name
    command: list[str]  # without keys
    seed: int
    workers: int
    slo: Slo
    windows: list[Window]
    capacity: Capacity | None = None
