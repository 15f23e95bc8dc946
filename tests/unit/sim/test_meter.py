"""Figures that are added up as they come."""

import pytest

from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.chance import Chance
from orchestrator.sim.meter import Bounds, Meter, Timeline


def test_a_timeline_widens_and_loses_nothing() -> None:
    line = Timeline()
    for at in range(5000):
        line.add("n", float(at), 1.0)
    assert len(line.sums["n"]) <= 240
    assert sum(line.sums["n"]) == 5000


def test_an_amount_is_spread_evenly_over_its_time() -> None:
    line = Timeline()
    line.spread("busy", 0.5, 2.5, 4.0)
    assert line.sums["busy"] == pytest.approx([1.0, 2.0, 1.0])


def test_a_request_keeps_the_slo_of_its_own_class() -> None:
    meter = Meter(bounds={"": Bounds(ttft_s=1.0), "slow": Bounds(ttft_s=10.0, tpot_s=0.1)})
    for number, klass in enumerate(("", "slow", "other")):
        call = Call(number, 0.0, 10, 11, thinking_tokens=5, klass=klass)
        call.first_at, call.emitted = 5.0, 11
        meter.ended(call, Outcome.FINISHED, "", 5.5)
    assert {name: score.kept for name, score in meter.classes.items()} == {
        "": 0,
        "slow": 1,
        "other": 0,
    }
    assert meter.answer.mean == pytest.approx(5.0 + 5 * 0.05)


def test_a_stream_of_chance_is_disturbed_by_no_other() -> None:
    one, other = Chance(7), Chance(7)
    other("more").random()
    assert one("faults").random() == other("faults").random()
    assert Chance(8)("faults").random() != Chance(7)("faults").random()
