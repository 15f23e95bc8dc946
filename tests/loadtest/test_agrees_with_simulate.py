"""The search and `r1-serve simulate` agree on what a plan's fleet takes, within 10 %.

The fleet is the same: the gateway's own service in front of simulated engines with the step times
of the plan. The search sees windows of minutes, as it does of a real deployment; `simulate` plays
long runs at two rates, a tenth below what was found and a tenth above: the share must lie between.
"""

import json
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from loadtest.capacity import Limits, Search, Step
from loadtest.result import (
    Bottleneck,
    Capacity,
    Counts,
    Latency,
    Slice,
    Slo,
    Tokens,
    Verdict,
    Window,
)
from orchestrator.cli import main
from orchestrator.cli.plan_inputs import read_workload
from orchestrator.cli.simulate_run import call_of, read_plan
from orchestrator.core import Histogram
from orchestrator.sim.call import Call, Outcome
from orchestrator.sim.chance import Chance
from orchestrator.sim.planned import Planned
from orchestrator.sim.sources import OpenLoop
from orchestrator.sim.world import Scenario, World
from orchestrator.workload import drawn_requests

SLO = Slo(ttft_s=1.0, itl_s=0.05, share=0.95)
WORKLOAD = "input=1000,output=100"
_SLICES = 12
_LONG_S = 900.0


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The plan's fleet, anew for each window."""

    plan: Planned
    seed: int

    def window(self, step: Step, number: int) -> Window:
        """What a client sees of one step; requests of the settling are sent and not counted."""
        seconds = step.settle_s + step.duration_s
        seed = self.seed * 1000 + number
        drawn = drawn_requests(read_workload(WORKLOAD), Chance(seed), step.per_s)
        due = takewhile(lambda request: request.at_s < seconds, drawn)
        calls = [call_of(at, request, 0.6) for at, request in enumerate(due)]
        spec = self.plan.spec
        scenario = Scenario(
            pools=self.plan.pools,
            seed=seed,
            gateways=2,
            spec=spec,
            model=spec.models[0].name,
            max_model_len=spec.models[0].max_model_len,
            overhead_s=self.plan.overhead_s,
        )
        World(scenario).run(OpenLoop(iter(calls)))
        return _window(step, [call for call in calls if call.at_s >= step.settle_s])


def _window(step: Step, calls: list[Call]) -> Window:
    slices = [Slice(0, 0) for _ in range(_SLICES)]
    e2e = Histogram()
    ended = good = 0
    for call in calls:
        place = int((call.at_s - step.settle_s) / step.duration_s * _SLICES)
        part = slices[min(place, _SLICES - 1)]  # the world begins a moment later
        part.due += 1
        if call.outcome is not Outcome.FINISHED:
            continue
        ended += 1
        e2e.add(call.ended_at - call.at_s)
        token_s = (call.ended_at - call.first_at) / max(call.emitted - 1, 1)
        assert SLO.ttft_s is not None
        assert SLO.itl_s is not None
        kept = call.first_at - call.at_s <= SLO.ttft_s and token_s <= SLO.itl_s
        part.good += kept
        good += kept
    nothing = Counts(0, 0.0, 0.0, {})
    return Window(
        offered_per_s=step.per_s,
        begin_s=step.settle_s,
        end_s=step.settle_s + step.duration_s,
        due=len(calls),
        ended=ended,
        good=good,
        errors={},
        latencies={Latency.E2E: Counts.of(e2e)},
        tokens=Tokens(),
        slices=slices,
        concurrency=0.0,
        lag=nothing,
        late=nothing,
        bottleneck=Bottleneck.NONE,
    )


def _searched(plan: Planned, seed: int) -> tuple[Capacity, int]:
    fleet = _Fleet(plan, seed)
    search = Search(SLO, 4.0, Limits(window_s_max=150.0, windows_max=22))
    number = 0
    while isinstance(step := search.next(), Step):
        search.note(fleet.window(step, number))
        number += 1
    return step, number


def _simulated(plan: Path, per_s: float, capsys: pytest.CaptureFixture[str]) -> float:
    """Attainment, by the command."""
    words = ["simulate", "--plan", str(plan), "--workload", WORKLOAD, "--rate", str(per_s)]
    slo = ["--slo", "ttft=1s,itl=50ms", "--duration", str(_LONG_S), "--seed", "77"]
    assert main([*words, *slo, "--format", "json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    [score] = tree["classes"].values()
    return float(score["within_slo"] / score["ended"])


@pytest.mark.timeout(600)
def test_the_search_and_simulate_agree_on_a_plans_fleet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    words = ("plan", "--gpus", "8xH200", "--workload", WORKLOAD + ",rate=4")
    assert main([*words, "--slo", "ttft=1s,itl=50ms", "--format", "values", "-o", str(path)]) == 0
    capacity, windows = _searched(read_plan(path, 0), 1)
    assert capacity.verdict in (Verdict.FOUND, Verdict.WIDE)
    assert capacity.high_per_s is not None
    below = _simulated(path, capacity.per_s * 0.9, capsys)
    above = _simulated(path, capacity.per_s * 1.1, capsys)
    with capsys.disabled():
        print(
            f"\nfound {capacity.per_s:.2f} requests/s ({capacity.low_per_s:.2f} to "
            f"{capacity.high_per_s:.2f}) in {windows} windows; simulate keeps {below:.1%} at 0.9 "
            f"times that and {above:.1%} at 1.1 times"
        )
    assert below >= SLO.share
    assert above < SLO.share
