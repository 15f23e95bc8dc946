"""`find-capacity` finds what an exact simulation says, in virtual time, through the real code."""

from functools import cache

import pytest

from loadtest.agenda import VirtualHost
from loadtest.capacity import Limits, Search
from loadtest.drive import Driver
from loadtest.load import LoadSpec, read_load
from loadtest.result import VERSION, Result, Slo, Verdict
from tests.exact_queue import capacity_per_s
from tests.virtual_load import ScriptedServer, VirtualPlayer

SLOTS, STEP_S, TOKENS = 16, 0.05, 20
SLO = Slo(ttft_s=0.5, itl_s=0.2, share=0.95)


@cache
def true_per_s() -> float:
    assert SLO.ttft_s is not None
    return capacity_per_s(
        slots=SLOTS, steps_s=[STEP_S], tokens=TOKENS, ttft_s=SLO.ttft_s, share=SLO.share
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_capacity_is_recovered_within_five_percent_and_its_interval_covers_it(seed: int) -> None:
    load = read_load(LoadSpec(f"input=100,output={TOKENS}", "", None, None, seed, "s", "m"))
    host = VirtualHost()
    server = ScriptedServer(host, slots=SLOTS, step_s=STEP_S, tokens=TOKENS)
    player = VirtualPlayer(host, server, load)
    result = Result(VERSION, "", "", "m", load.name, [], seed, 1, SLO, [])
    lines: list[str] = []
    driver = Driver(player, load, result, 600.0, None, lines.append)
    driver.find_capacity(Search(SLO, 2.0, Limits(window_s_min=60.0)), SLOTS * STEP_S)
    found = result.capacity
    assert found is not None, lines
    print(*lines, sep="\n")
    print(f"true {true_per_s():.3f}; {found}; {host.now():.0f} s of virtual time")
    assert found.verdict in {Verdict.FOUND, Verdict.WIDE}
    assert found.high_per_s is not None
    assert found.high_per_s / found.low_per_s < 1.2
    assert found.per_s == pytest.approx(true_per_s(), rel=0.05)
    assert found.low_per_s <= true_per_s() <= found.high_per_s
