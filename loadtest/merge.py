"""Windows of several processes, which each sent a share of the same schedule, as one."""

from collections import Counter
from collections.abc import Iterable, Sequence

from loadtest.meter import tokens_of
from loadtest.result import Bottleneck, Counts, Latency, Slice, Window
from orchestrator.core import Histogram


def merged(windows: Sequence[Window]) -> Window:
    """One window of the same span. Where one process was its own bottleneck, it was one of all:
    its share of the latencies is partly its own.
    """
    assert windows
    first = windows[0]
    slices = [
        Slice(
            sum(part.due for part in parts),
            sum(part.good for part in parts),
            sum(part.ended for part in parts),
            sum(part.ttft_s for part in parts),
            sum(part.tpot_s for part in parts),
        )
        for parts in zip(*(window.slices for window in windows), strict=False)
    ]
    limits = [window for window in windows if window.bottleneck is not Bottleneck.NONE]
    return Window(
        offered_per_s=first.offered_per_s,
        begin_s=first.begin_s,
        end_s=min(window.end_s for window in windows),
        due=sum(window.due for window in windows),
        ended=sum(window.ended for window in windows),
        good=sum(window.good for window in windows),
        errors=dict(sum((Counter(window.errors) for window in windows), Counter())),
        latencies={
            latency: _counts(window.latencies[latency] for window in windows) for latency in Latency
        },
        tokens=tokens_of([window.tokens for window in windows]),
        slices=slices,
        concurrency=sum(window.concurrency for window in windows),
        lag=_counts(window.lag for window in windows),
        late=_counts(window.late for window in windows),
        bottleneck=limits[0].bottleneck if limits else Bottleneck.NONE,
        server=first.server,
    )


def _counts(parts: Iterable[Counts]) -> Counts:
    total = Histogram()
    for part in parts:
        total.merge(part.histogram())
    return Counts.of(total)
