"""Requests drawn from summaries and from ServeGen's files."""

import random
from itertools import islice

import pytest

from orchestrator.sim.chance import Chance
from orchestrator.workload import (
    PROFILES,
    Lengths,
    Lottery,
    drawn_requests,
    servegen_requests,
    summarise,
    trace_requests,
)


def test_drawn_lengths_have_the_summary_s_mean_and_quantiles() -> None:
    lengths = Lengths(1_527, 792, 3_432, 12_607, 32_768)
    lottery, chance = Lottery(lengths), random.Random(1)
    drawn = sorted(lottery.draw(chance) for _ in range(20_000))
    assert sum(drawn) / len(drawn) == pytest.approx(lengths.mean, rel=0.05)
    assert drawn[len(drawn) // 2] == pytest.approx(lengths.p50, rel=0.15)
    assert drawn[int(0.9 * len(drawn))] == pytest.approx(lengths.p90, rel=0.15)
    assert drawn[-1] <= lengths.max


def test_drawn_requests_come_at_the_rate_and_share_what_the_profile_shares() -> None:
    requests = list(islice(drawn_requests(PROFILES["chat"], Chance(1), 5.0), 3000))
    found = summarise("drawn", "", requests)
    assert found.arrivals is not None
    assert found.arrivals.requests_per_s == pytest.approx(5.0, rel=0.1)
    assert found.prefix_hit == pytest.approx(PROFILES["chat"].prefix_hit, abs=0.06)


def test_requests_of_a_closed_loop_have_no_instants() -> None:
    assert {r.at_s for r in islice(drawn_requests(PROFILES["batch"], Chance(1), None), 9)} == {0.0}


FILES = {
    "chunk-0-trace.csv": "0,2.0,1.0,,0,0\n600,0,0,,0,0\n",
    "chunk-0-dataset.json": '{"0": {"input_tokens": "{100: 1.0}", "output_tokens": "{7: 1.0}"}}',
    "chunk-1-trace.csv": "0,0.5,2.0,,0,0\n",
    "chunk-1-dataset.json": '{"0": {"input_tokens": "{50: 1.0}", "output_tokens": "{9: 1.0}"}}',
}


def test_servegen_s_clients_are_drawn_each_in_its_windows_and_merged_in_order() -> None:
    requests = list(servegen_requests(FILES, "x", Chance(1)))
    instants = [request.at_s for request in requests]
    assert instants == sorted(instants)
    assert instants[-1] < 600.0
    first = [request for request in requests if request.input_tokens == 100]
    assert len(first) == pytest.approx(1200, rel=0.1)
    assert {request.output_tokens for request in first} == {7}
    assert requests == list(servegen_requests(FILES, "x", Chance(1)))


def test_a_plain_table_may_name_thoughts_and_classes() -> None:
    lines = ["at_s,input_tokens,output_tokens,class,thinking_tokens", "1.5,10,20,chat,8", ""]
    (request,) = trace_requests(lines, "t.csv")
    assert (request.at_s, request.klass, request.thinking_tokens) == (1.5, "chat", 8)
