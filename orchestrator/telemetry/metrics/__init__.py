"""The metric catalogue: every metric of our own, with unit, help and what bounds its labels.

From it are made the exposition (`Metrics`), docs/metrics.md, the boards and the alert rules; a test
holds each of their queries against it. To add a metric:

1. Write a `Metric` into the module of its area here, or into a new one, and into that module's
   tuple, which stands in `CATALOGUE` below. The name begins with `r1_`, ends in its unit and, for a
   counter, in `_total`. Its labels are constants of `labels.py`: a new one says what bounds its
   values (an enum, the spec, the fleet). Never the id of a request or a tenant's name.
2. Set it where the thing happens, with the label values in the order of its labels:
   `metrics.count(m.MOVED, 1, model, reason)`, `.set(...)`, `.observe(...)`. What costs something to
   look up is set in `Metrics.before_exposition`, when somebody scrapes.
3. Run `make telemetry`, which writes docs/metrics.md.

A panel or an alert that shows it goes into `telemetry/boards` or `telemetry/alerts`.
"""

from orchestrator.telemetry.metrics.doctor import *  # noqa: F403  # constants, one name each
from orchestrator.telemetry.metrics.doctor import DOCTOR_METRICS
from orchestrator.telemetry.metrics.hosts import *  # noqa: F403  # constants, one name each
from orchestrator.telemetry.metrics.hosts import HOST_METRICS
from orchestrator.telemetry.metrics.metric import Metric
from orchestrator.telemetry.metrics.pools import *  # noqa: F403
from orchestrator.telemetry.metrics.pools import POOL_METRICS
from orchestrator.telemetry.metrics.requests import *  # noqa: F403
from orchestrator.telemetry.metrics.requests import REQUEST_METRICS

CATALOGUE: tuple[Metric, ...] = (*REQUEST_METRICS, *POOL_METRICS, *HOST_METRICS, *DOCTOR_METRICS)
BY_NAME = {metric.exported: metric for metric in CATALOGUE}
assert len(BY_NAME) == len(CATALOGUE)
