"""Short days of small fleets with faults, from seeds; every checker watches every event."""

import os
from pathlib import Path

import pytest
from typing_extensions import override

from orchestrator.core import Finish
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import Job, Stage
from orchestrator.sim.rank import SimRank
from orchestrator.sim.story import Story, shrink, story_of

FIRST = int(os.environ.get("SIM_FIRST", "0"))
SEEDS = int(os.environ.get("SIM_SEEDS", "50"))
KNOWN = [
    int(line.split()[0])
    for line in Path(__file__).with_name("seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def told(story: Story) -> str:
    """Fails with the shortest story that breaks the rule too."""
    fault = story.fault()
    if not fault:
        return ""
    short = shrink(story)
    left = [number for number in range(short.requests) if number not in short.left_out]
    return (
        f"{fault}\n shortest story: seed {short.seed}, requests {left}, faults:\n  "
        + "\n  ".join(str(each) for each in short.faults)
        + f"\n which says: {short.fault()}\n add the seed to tests/sim/seeds.txt"
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, 10))
def test_no_rule_is_broken_whatever_fails(first: int) -> None:
    for seed in range(first, min(first + 10, FIRST + SEEDS)):
        assert not (found := told(story_of(seed))), f"seed {seed}: {found}"


def test_seeds_that_once_broke_a_rule_break_none() -> None:
    for seed in KNOWN:
        assert not (found := told(story_of(seed))), f"seed {seed}: {found}"


# --- planted faults: the checkers find what they are there for -----------------------------------


class _LeakyRank(SimRank):
    """Forgets to give back blocks of requests that were cancelled while they were decoding."""

    @override
    def release(self, job: Job) -> None:
        if job.stage is Stage.DECODE and job.emitted < job.output_tokens and job.number % 3 == 0:
            self.running.pop(job, None)
            job.held, job.reserved = (), 0
            return
        super().release(job)


class Leaks(Gang):
    def __init__(self, *args: object, **names: object) -> None:
        super().__init__(*args, **names)  # type: ignore[arg-type]  # as it is called
        self.ranks = [_LeakyRank(self.model, index) for index in range(self.model.ranks)]


class LosesCompletions(Gang):
    """Now and then a request ends and nobody hears of it."""

    @override
    def _end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        if finish is Finish.STOP and job.number % 40 == 7:
            job.stage = Stage.OVER
            return
        super()._end(job, finish, cause, now)


class CompletesTwice(Gang):
    """Now and then an end is told again at the next step."""

    @override
    def _end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        super()._end(job, finish, cause, now)
        if finish is Finish.STOP and job.number % 40 == 7:
            self._agenda.at(now + 0.05, lambda when: job.outlet.on_end(job, finish, cause, when))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("planted", [Leaks, LosesCompletions, CompletesTwice])
def test_a_planted_fault_is_found_within_fifty_seeds(planted: type[Gang]) -> None:
    found = next((seed for seed in range(50) if story_of(seed).fault(planted)), None)
    assert found is not None


def test_a_story_that_breaks_a_rule_shrinks_to_a_short_one() -> None:
    story = next(story for seed in range(50) if (story := story_of(seed)).fault(CompletesTwice))
    short = shrink(story, CompletesTwice)
    assert short.fault(CompletesTwice)
    assert short.requests - len(short.left_out) <= story.requests // 2
    assert len(short.faults) <= len(story.faults)
