"""One process's own metrics: numbers in dicts, written as text when somebody scrapes.

The hot path adds to a number. `prometheus_client` would take a lock and look labels up for each,
and write its text in one go; here the text comes family by family, so that a loop with streams on
it can turn in between.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from orchestrator.telemetry.metrics import CATALOGUE
from orchestrator.telemetry.metrics.metric import Bound, Kind, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[str, ...]


class Observed:
    """One histogram's numbers."""

    __slots__ = ("_buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more observation."""
        self.counts[bisect_left(self._buckets, value)] += 1
        self.total += value


class Metrics:
    """Numbers of the metrics of the catalogue. On one thread only."""

    def __init__(self) -> None:
        self._values: dict[str, dict[_Labels, float]] = {m.name: {} for m in CATALOGUE}
        self._observed: dict[str, dict[_Labels, Observed]] = {
            m.name: {} for m in CATALOGUE if m.kind is Kind.HISTOGRAM
        }
        self._before: list[Callable[[], None]] = []

    def before_exposition(self, action: Callable[[], None]) -> None:
        """Has `action` called before each exposition, to set what is looked up only then."""
        self._before.append(action)

    def count(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        """Adds to a counter."""
        values = self._values[metric.name]
        if labels in values:
            values[labels] += amount
        else:
            _check(metric, labels)
            values[labels] = amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a gauge, or a counter that is counted elsewhere."""
        values = self._values[metric.name]
        if labels not in values:
            _check(metric, labels)
        values[labels] = value

    def forget(self, metric: Metric, first: str) -> None:
        """It has no samples with that first label any more, until they are set again."""
        values = self._values[metric.name]
        for labels in [labels for labels in values if labels[0] == first]:
            del values[labels]

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds an observation to a histogram."""
        self.observed(metric, *labels).add(value)

    def observed(self, metric: Metric, *labels: str) -> Observed:
        """The histogram's numbers, for who adds to them often."""
        of_metric = self._observed[metric.name]
        if (found := of_metric.get(labels)) is None:
            _check(metric, labels)
            of_metric[labels] = found = Observed(metric.buckets)
        return found

    def exposition(self) -> bytes:
        """All of them in Prometheus text format."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The same, a metric at a time; metrics without a sample are left out."""
        for action in self._before:
            action()
        for metric in CATALOGUE:
            if metric.kind is Kind.HISTOGRAM:
                if of_metric := self._observed[metric.name]:
                    yield _histograms(metric, of_metric)
            elif values := self._values[metric.name]:
                yield _samples(metric, values)


def _samples(metric: Metric, values: dict[_Labels, float]) -> bytes:
    lines = [_head(metric)]
    lines += [f"{metric.name}{_text(metric, at)} {_number(v)}\n" for at, v in values.items()]
    return "".join(lines).encode()


def _histograms(metric: Metric, of_metric: dict[_Labels, Observed]) -> bytes:
    name, bounds = metric.name, [_number(bound) for bound in metric.buckets]
    lines = [_head(metric)]
    for labels, observed in of_metric.items():
        pairs = _pairs(metric, labels)
        inside = f"{pairs}," if pairs else ""
        below = 0
        for bound, count in zip((*bounds, "+Inf"), observed.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{{inside}le="{bound}"}} {below}.0\n')
        braced = f"{{{pairs}}}" if pairs else ""
        lines.append(f"{name}_sum{braced} {_number(observed.total)}\n")
        lines.append(f"{name}_count{braced} {below}.0\n")
    return "".join(lines).encode()


def _head(metric: Metric) -> str:
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"


def _text(metric: Metric, labels: _Labels) -> str:
    return f"{{{_pairs(metric, labels)}}}" if labels else ""


def _pairs(metric: Metric, labels: _Labels) -> str:
    return ",".join(
        f'{label.name}="{_escaped(value)}"'
        for label, value in zip(metric.labels, labels, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(float(value))


def _check(metric: Metric, labels: _Labels) -> None:
    """Of a series' first sample: a value that the catalogue does not know is a programmer error."""
    assert len(labels) == len(metric.labels), metric.name
    for label, value in zip(metric.labels, labels, strict=True):
        assert label.bound is not Bound.ENUM or value in label.values, (metric.name, value)
