"""docs/metrics.md: the catalogue as a page."""

from collections.abc import Iterator

from orchestrator.telemetry.metrics import HOST_METRICS, POOL_METRICS, REQUEST_METRICS
from orchestrator.telemetry.metrics.metric import Bound, Label, Metric

_HEAD = """# Metrics

Written by `make telemetry` from `orchestrator/telemetry/metrics`; changes here are lost. How to
add one stands in that package's docstring.

Every host's telemetry process (`r1-serve telemetry`) gives these, and those of the engines as they
are, on one port (`telemetry.port`); each sample gets the label `process`. vLLM's own begin with
`vllm:`, Ray's with `ray_`. No label names a request or a tenant.
"""
_SECTIONS = (
    ("Requests", "Of gateways.", REQUEST_METRICS),
    ("Pools, scaling, money", "Of gateways; names with `ray_` come by way of Ray.", POOL_METRICS),
    (
        "Hosts and GPUs",
        "What is not available has no sample.",
        HOST_METRICS,
    ),
)
_BOUNDS = {Bound.SPEC: "names in the spec", Bound.FLEET: "as many as the fleet has"}


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    labels: dict[tuple[str, str], Label] = {}
    for title, said, found in _SECTIONS:
        yield f"## {title}\n\n{said}\n"
        yield "| metric | kind | labels | what |\n|---|---|---|---|"
        for metric in found:
            yield _row(metric)
            labels |= {(label.name, label.help): label for label in metric.labels}
        yield ""
    yield "## Labels\n\n| label | of what | values |\n|---|---|---|"
    for (name, help_), label in sorted(labels.items()):
        values = ", ".join(sorted(label.values)) or _BOUNDS[label.bound]
        yield f"| `{name}` | {help_} | {values} |"


def _row(metric: Metric) -> str:
    labels = ", ".join(label.name for label in metric.labels)
    return f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.help} |"
