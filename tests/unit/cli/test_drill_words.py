"""What `r1-serve drill` refuses, and what it says and writes."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.fleet.drill import (
    Drill,
    Finding,
    Judgement,
    Limits,
    Phase,
    Seen,
    Tally,
    Verdict,
    judge,
)
from orchestrator.fleet.drill import burns as burning
from orchestrator.runtime.ports import PortClaims
from tests.unit.cli.test_simulate_command import PLAN

WELL = Tally(lasts_s=10.0, kept=50)


SEEN = Seen(
    Drill.KILL_GANG, "it", {Phase.BEFORE: WELL, Phase.DURING: WELL, Phase.AFTER: WELL}, back_s=5.0
)


def during(tally: Tally, after: Tally = WELL) -> Seen:
    return replace(SEEN, phases={Phase.BEFORE: WELL, Phase.DURING: tally, Phase.AFTER: after})


def test_no_loss_and_everything_back_in_time_is_passed() -> None:
    assert judge(Limits(10.0), SEEN).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, back_s=None),
        replace(SEEN, back_s=11.0),
        during(Tally(failed=1)),
        during(Tally(broken=1)),
        during(WELL, after=Tally()),
        during(WELL, after=Tally(kept=4, late=6)),
    ],
)
def test_a_loss_a_late_return_or_a_worse_fleet_is_failed(seen: Seen) -> None:
    assert judge(Limits(10.0), seen).verdict is Verdict.FAILED


def test_of_a_killed_gateway_its_own_streams_may_break_and_no_other() -> None:
    seen = replace(during(Tally(broken=3)), drill=Drill.KILL_GATEWAY)
    assert judge(Limits(10.0), replace(seen, held=3)).verdict is Verdict.PASSED
    assert judge(Limits(10.0), replace(seen, held=2)).verdict is Verdict.FAILED


def test_the_slo_burns_when_most_of_the_last_requests_are_outside_of_it_and_not_before() -> None:
    limits = Limits(10.0, burn=0.5, burn_requests=10)
    assert not burning(limits, [False] * 9)
    assert not burning(limits, [False] * 5 + [True] * 5)
    assert burning(limits, [False] * 6 + [True] * 4)


def test_an_aborted_drill_says_so_first() -> None:
    judgement = judge(Limits(10.0), replace(SEEN, aborted=True))
    assert judgement.verdict is Verdict.ABORTED
    assert judgement == Judgement(judgement.verdict, judgement.findings)
    assert isinstance(judgement.findings[0], Finding)
    assert "aborted" in judgement.findings[0].text


def test_a_drill_without_a_fleet_has_one_message_with_cause_and_cure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ports = PortClaims("127.0.0.1")
    (port,) = ports.take(1)
    assert main(["drill", "kill-gang", "--url", f"http://127.0.0.1:{port}"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "has no target" in said[0]
    assert "--simulate PLAN" in said[1]
    ports.release()


def test_a_fleet_elsewhere_is_left_alone_until_it_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["drill", "kill-gang", "--url", "http://fleet.example"]
    assert main(words) == 1
    assert "--yes-this-is fleet.example" in capsys.readouterr().err
    assert main([*words, "--yes-this-is", "another.example"]) == 1
    assert "--yes-this-is fleet.example" in capsys.readouterr().err
    assert main([*words, "--yes-this-is", "fleet.example"]) == 1
    assert "not on this machine" in capsys.readouterr().err


def test_a_simulated_drill_ends_with_a_verdict_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, report = tmp_path / "plan.yaml", tmp_path / "drill.html"
    plan.write_text(PLAN)
    words = ["drill", "drop-kv-events", "--simulate", str(plan), "--report", str(report)]
    assert main([*words, "--before", "10", "--lasts", "5", "--after", "20"]) == 0
    assert "drop-kv-events: passed" in capsys.readouterr().out
    page = report.read_text()
    assert "Drill drop-kv-events: passed" in page
    assert "<script" not in page


def test_a_simulated_drill_without_a_target_says_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    words = ["drill", "kill-gateway", "--simulate", str(plan), "--gateways", "1"]
    assert main(words) == 1
    assert "--gateways 2" in capsys.readouterr().err
