"""Whether a window's latencies are the server's, or partly those of the generator itself.

Two things of the generator's own get into what it measures. A request that it sends late waits
before the server has it, and counts as waiting, since latencies begin when a request is due. And a
piece that has come waits in the socket while the loop is busy, which moves the first token and
every gap. Both are measured: lateness at each request, lag all the time. Neither can come from the
server: a request is sent when its turn comes, whatever has been answered, and a loop that waits
for a silent server is not late.

What the 99th percentile of both would move counts, against what is asked or measured:

* the first token by more than 5 % of its bound, and by more than 10 ms; without a bound, of its
  own 99th percentile;
* a gap between tokens by more than a quarter of the bound of their mean, and by more than 5 ms;
  without a bound, of the measured mean gap.
"""

from loadtest.result import Bottleneck, Latency, Slo, Window
from orchestrator.core import Histogram

TTFT_SHARE, TTFT_LEAST_S = 0.05, 0.010
ITL_SHARE, ITL_LEAST_S = 0.25, 0.005
QUANTILE = 0.99


def bottleneck_of(window: Window, slo: Slo) -> Bottleneck:
    """The rule above."""
    lag_s = window.lag.histogram().quantile(QUANTILE)
    late_s = window.late.histogram().quantile(QUANTILE)
    ttft_s = slo.ttft_s
    if ttft_s is None:
        ttft_s = _latency(window, Latency.TTFT).quantile(QUANTILE)
    if lag_s + late_s > max(TTFT_LEAST_S, TTFT_SHARE * ttft_s):
        return Bottleneck.GENERATOR
    itl_s = slo.itl_s
    if itl_s is None:
        gaps = _latency(window, Latency.ITL_THINKING)
        gaps.merge(_latency(window, Latency.ITL_ANSWER))
        itl_s = gaps.mean
    if lag_s > max(ITL_LEAST_S, ITL_SHARE * itl_s):
        return Bottleneck.GENERATOR
    return Bottleneck.NONE


def _latency(window: Window, latency: Latency) -> Histogram:
    counts = window.latencies.get(latency)
    return counts.histogram() if counts is not None else Histogram()
