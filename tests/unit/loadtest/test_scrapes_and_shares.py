"""What servers say of themselves, and windows of several processes as one."""

import pytest

from loadtest.merge import merged
from loadtest.meter import Span, WindowMeter
from loadtest.phase import Phase
from loadtest.record import Record
from loadtest.result import Bottleneck, Latency, Slo, Window
from loadtest.scrape import read_metrics, window_figures
from loadtest.stream import Usage

METRICS = """\
# HELP r1_rank_kv_ratio Share of blocks.
# TYPE r1_rank_kv_ratio gauge
r1_rank_kv_ratio{model="m",role="prefill",rank="a/0",process="g"} 0.2
r1_rank_kv_ratio{model="m",role="decode",rank="b/0",process="g"} 0.6
r1_rank_kv_ratio{model="m",role="decode",rank="b/1",process="g"} 0.7
r1_requests_queued{model="m",process="g0"} 3
r1_requests_queued{model="m",process="g1"} 4
r1_pool_gpus{model="m",role="prefill",process="g0"} 8
r1_pool_gpus{model="m",role="decode",process="g0"} 16
r1_pool_gpus{model="m",role="decode",process="g1"} 16
r1_gpu_hour_price 2.5
r1_gpu_sm_active_ratio{node="n",gpu="0"} NaN-what
r1_rank_busy_seconds_total{role="decode"} 10
r1_rank_held_seconds_total{role="decode"} 40
other_metric 9
"""


def test_figures_are_means_sums_and_what_is_the_same_everywhere() -> None:
    found = read_metrics(METRICS)
    assert found["r1_rank_kv_ratio"] == 0.5
    assert found["r1_rank_kv_ratio{role=decode}"] == pytest.approx(0.65)
    assert found["r1_requests_queued"] == 7.0
    assert found["r1_pool_gpus"] == 24.0
    assert found["r1_gpu_hour_price"] == 2.5
    assert "r1_gpu_sm_active_ratio" not in found
    assert "other_metric" not in found


def test_a_windows_figures_are_means_and_the_share_of_time_that_was_busy() -> None:
    busy, held = "r1_rank_busy_seconds_total", "r1_rank_held_seconds_total"
    scrapes = [{"a": 1.0, busy: 10.0, held: 40.0}, {"a": 3.0, busy: 15.0, held: 50.0}]
    assert window_figures(scrapes) == {"a": 2.0, "ranks_busy_ratio": 0.5}
    assert window_figures([]) == {}


def window_of(late_s: float, errors: int) -> Window:
    meter = WindowMeter(Span(0.0, 12.0, 5.0))
    slo = Slo(1.0, 1.0)
    for number in range(24):
        part = meter.part(number / 2)
        assert part is not None
        record = Record(part, number / 2, 10)
        record.sent(number / 2 + late_s)
        if number < errors:
            record.fail("cut")
            continue
        record.piece(Phase.ANSWER, number / 2 + 0.5)
        record.end(slo, Usage(10, 0, 0, 1), number / 2 + 0.6)
    meter.streams(3, 0.0)
    window = meter.window(slo, 12.0)
    assert window is not None
    return window


def test_shares_of_a_window_add_up_and_one_late_process_is_the_bottleneck() -> None:
    whole = merged([window_of(0.0, 2), window_of(0.3, 3)])
    assert (whole.offered_per_s, whole.due, whole.ended, whole.good) == (5.0, 48, 43, 43)
    assert whole.errors == {"cut": 5}
    assert whole.latencies[Latency.TTFT].count == 43
    assert [each.due for each in whole.slices] == [4] * 12
    assert sum(each.good for each in whole.slices) == 43
    assert whole.concurrency == 6.0
    assert whole.tokens.prompt == 430
    assert whole.bottleneck is Bottleneck.GENERATOR
