"""The server's own figures over the time of a load: its metrics endpoint, asked now and then."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent

from loadtest.exchange import get
from loadtest.result import Window
from loadtest.target import Target

EVERY_S = 2.0
_ANSWER_S = 5.0

# Of a scrape's samples of a gauge, the mean; those with a role have one for each role too, as
# `NAME{role=decode}`. docs/metrics.md has r1-serve's; the others are vLLM's.
MEANS = frozenset(
    {
        "r1_gpu_sm_active_ratio",
        "r1_gpu_tensor_active_ratio",
        "r1_gpu_dram_active_ratio",
        "r1_gpu_any_kernel_ratio",
        "r1_rank_kv_ratio",
        "r1_rank_requests",
        "vllm:kv_cache_usage_perc",
    }
)
# The sum.
SUMS = frozenset(
    {
        "r1_gpu_power_watts",
        "r1_requests_queued",
        "r1_requests_in_flight",
        "r1_transfers_open",
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
    }
)
# The most: each gateway tells the same.
MOST = frozenset({"r1_pool_gpus", "r1_gpu_hour_price"})
# The share of these two counters' growth over a window.
_BUSY, _HELD = "r1_rank_busy_seconds_total", "r1_rank_held_seconds_total"
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s+(\S+)", re.MULTILINE)
_ROLE = re.compile(r'[{,]role="([^"]*)"')


def read_metrics(text: str) -> dict[str, float]:
    """The named figures of one scrape; what the server does not have is left out."""
    figures: dict[str, float] = {}
    for name, by_role in _samples(text).items():
        values = [value for mine in by_role.values() for value in mine]
        if name in MEANS:
            figures[name] = _mean(values)
            for role, mine in by_role.items():
                if role:
                    figures[f"{name}{{role={role}}}"] = _mean(mine)
        elif name == "r1_pool_gpus":
            figures[name] = sum(max(mine) for mine in by_role.values())
        elif name in MOST:
            figures[name] = max(values)
        elif name in SUMS or name in {_BUSY, _HELD}:
            figures[name] = sum(values)
    return figures


def _samples(text: str) -> dict[str, dict[str, list[float]]]:
    """The finite values of each metric, by the role that their labels name."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, labels, value in _SAMPLE.findall(text):
        match = _ROLE.search(labels)
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            found[name][match[1] if match else ""].append(number)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class Scraper:
    """Looks at one endpoint until it is closed; a scrape that fails is left out, and counted."""

    def __init__(self, target: Target, now: Callable[[], float]) -> None:
        """`now` is in seconds of the run. The target's path is that of the metrics."""
        self.failed = 0
        self._target = target
        self._now = now
        self._seen: list[tuple[float, dict[str, float]]] = []
        self._greenlet: Any = gevent.spawn(self._keep)

    def close(self) -> None:
        """No more scrapes."""
        self._greenlet.kill(block=False)

    def tell(self, windows: Sequence[Window]) -> None:
        """Writes the means over each window into it, and forgets what is older than the last."""
        for window in windows:
            inside = [seen for at, seen in self._seen if window.begin_s <= at <= window.end_s]
            window.server = window_figures(inside)
        if windows:
            self._seen = [each for each in self._seen if each[0] > windows[-1].end_s]

    def _keep(self) -> None:
        while True:
            try:
                answer = get(self._target, "", _ANSWER_S)
            except OSError:
                self.failed += 1
            else:
                if answer.status == 200:
                    text = answer.body.decode("utf-8", "replace")
                    self._seen.append((self._now(), read_metrics(text)))
                else:
                    self.failed += 1
            gevent.sleep(EVERY_S)


def window_figures(scrapes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the scrapes of a window; of the busy time, its share."""
    sums: dict[str, list[float]] = defaultdict(list)
    for scrape in scrapes:
        for name, value in scrape.items():
            sums[name].append(value)
    busy, held = sums.pop(_BUSY, []), sums.pop(_HELD, [])
    figures = {name: sum(values) / len(values) for name, values in sorted(sums.items())}
    if len(busy) > 1 and len(held) > 1 and held[-1] > held[0]:
        figures["ranks_busy_ratio"] = max(0.0, busy[-1] - busy[0]) / (held[-1] - held[0])
    return figures
