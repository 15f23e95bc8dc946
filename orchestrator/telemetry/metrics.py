"""The metric catalogue, and the exposition built from it.

Every metric of r1-serve's own stands in `CATALOGUE` with its unit and help; labels have few values
each and never name a request.
"""

from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Kind(StrEnum):
    """How a metric is added up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: name with its unit last, kind, help, labels and, for a histogram, its buckets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_TTFT = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_E2E = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

REQUESTS = Metric(
    "r1_requests_total",
    Kind.COUNTER,
    "Requests that ended, by how they ended.",
    ("model", "outcome"),
)
IN_FLIGHT = Metric(
    "r1_requests_in_flight", Kind.GAUGE, "Requests admitted and not yet ended.", ("model",)
)
WAITING = Metric("r1_requests_queued", Kind.GAUGE, "Requests waiting for admission.", ("model",))
TOKENS = Metric(
    "r1_output_tokens_total", Kind.COUNTER, "Tokens generated for clients.", ("model", "part")
)
PROMPT_TOKENS = Metric(
    "r1_prompt_tokens_total", Kind.COUNTER, "Prompt tokens of admitted requests.", ("model",)
)
TTFT = Metric("r1_ttft_seconds", Kind.HISTOGRAM, "Arrival to first token sent.", ("model",), _TTFT)
E2E = Metric("r1_request_seconds", Kind.HISTOGRAM, "Arrival to last token sent.", ("model",), _E2E)
PATHS = Metric(
    "r1_prefill_paths_total",
    Kind.COUNTER,
    "How prompts were prefilled.",
    ("model", "path", "reason"),
)
RESUMED = Metric(
    "r1_requests_resumed_total",
    Kind.COUNTER,
    "Submissions after a rank failed or was left.",
    ("model",),
)
MOVED = Metric(
    "r1_requests_moved_total",
    Kind.COUNTER,
    "Requests moved from a rank that drains, by reason.",
    ("model", "reason"),
)
QUARANTINED = Metric(
    "r1_requests_quarantined_total",
    Kind.COUNTER,
    "Requests that engines died of, and that were given up.",
    ("model",),
)
RANKS = Metric("r1_ranks_open", Kind.GAUGE, "Ranks that this gateway can reach.", ("model", "role"))
KV_BATCHES = Metric(
    "r1_kv_event_batches",
    Kind.GAUGE,
    "Batches of KV events of the ranks that are listed, by what became of them.",
    ("model", "outcome"),
)
EMPTY_ANSWERS = Metric(
    "r1_empty_answers_total",
    Kind.COUNTER,
    "Completions that ended inside their reasoning, by finish reason.",
    ("model", "reason"),
)
INVALID_JSON = Metric(
    "r1_invalid_json_total",
    Kind.COUNTER,
    "Answers that a grammar should have made JSON and that are none.",
    ("model",),
)
THOUGHTS_CLOSED = Metric(
    "r1_thoughts_closed_total",
    Kind.COUNTER,
    "Thoughts that the gateway closed, since the engine had not kept their budget.",
    ("model",),
)
USAGE_FAULT = Metric(
    "r1_usage_fault", Kind.GAUGE, "1 while usage cannot be written, or others' cannot be read."
)
USAGE_LOST = Metric(
    "r1_usage_records_lost", Kind.GAUGE, "Records of usage that were given up, in this life."
)
DOCTOR_PROBE = Metric(
    "r1_doctor_probe",
    Kind.GAUGE,
    "Subjects that a probe of the last round has found in a state.",
    ("model", "probe", "state"),
)
DOCTOR_FAULT = Metric(
    "r1_doctor_fault",
    Kind.GAUGE,
    "Ranks that have a silent fault, by its name, as of the last round.",
    ("model", "fault"),
)
DOCTOR_ROUNDS = Metric(
    "r1_doctor_rounds_total",
    Kind.COUNTER,
    "Rounds of the doctor, by the worst that they found.",
    ("state",),
)
DOCTOR_LAST = Metric(
    "r1_doctor_last_round_seconds", Kind.GAUGE, "When the last round ended, in Unix time."
)
DOCTOR_EVERY = Metric(
    "r1_doctor_every_seconds",
    Kind.GAUGE,
    "How often the doctor is to make a round; none if only when it is asked to.",
)

CATALOGUE = (
    REQUESTS,
    IN_FLIGHT,
    WAITING,
    TOKENS,
    PROMPT_TOKENS,
    TTFT,
    E2E,
    PATHS,
    RESUMED,
    MOVED,
    QUARANTINED,
    RANKS,
    KV_BATCHES,
    EMPTY_ANSWERS,
    INVALID_JSON,
    THOUGHTS_CLOSED,
    USAGE_FAULT,
    USAGE_LOST,
    DOCTOR_PROBE,
    DOCTOR_FAULT,
    DOCTOR_ROUNDS,
    DOCTOR_LAST,
    DOCTOR_EVERY,
)


class Metrics:
    """One process's own metrics, made from the catalogue."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._observed: dict[tuple[str, ...], Histogram] = {}  # what `labels` looks up at a price
        for metric in CATALOGUE:
            self._add(metric)

    def _add(self, metric: Metric) -> None:
        match metric.kind:
            case Kind.COUNTER:
                self._counters[metric.name] = Counter(
                    metric.name, metric.help, metric.labels, registry=self._registry
                )
            case Kind.GAUGE:
                self._gauges[metric.name] = Gauge(
                    metric.name, metric.help, metric.labels, registry=self._registry
                )
            case Kind.HISTOGRAM:
                self._histograms[metric.name] = Histogram(
                    metric.name,
                    metric.help,
                    metric.labels,
                    buckets=metric.buckets,
                    registry=self._registry,
                )

    def count(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        """Adds to a counter."""
        counter = self._counters[metric.name]
        (counter.labels(*labels) if labels else counter).inc(amount)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a gauge."""
        gauge = self._gauges[metric.name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds an observation to a histogram."""
        key = (metric.name, *labels)
        if (histogram := self._observed.get(key)) is None:
            histogram = self._histograms[metric.name]
            if labels:
                histogram = histogram.labels(*labels)
            self._observed[key] = histogram
        histogram.observe(value)

    def exposition(self) -> bytes:
        """All of them in Prometheus text format."""
        return generate_latest(self._registry)
