"""A simulated gang's arithmetic: steps, barriers, chunks, blocks."""

import random

import pytest

from orchestrator.core import Finish, KvSource, Role
from orchestrator.routing import KvBatch, Stored
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import GangModel, Job, Pull, Scheduling

PREFILL_S, STEP_S = 1.0, 0.25  # a token of a prompt, and a decode step
BLOCK = 4


class Passes:
    """A second for each prompt token of the slowest rank; a quarter for a step."""

    def decode_s(self, batch: int, total: int, context: float) -> float:
        return STEP_S

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        return PREFILL_S * tokens

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        return 0.0


class World:
    """One gang, and what is heard of it."""

    def __init__(self, **numbers: object) -> None:
        known: dict[str, object] = {
            "role": Role.UNIFIED,
            "ranks": 1,
            "passes": Passes(),
            "blocks": 100,
            "block_tokens": BLOCK,
        }
        self.agenda = Agenda()
        model = GangModel(**{**known, **numbers})  # type: ignore[arg-type]  # as it is called
        self.gang = Gang("g", model, self.agenda, self, random.Random(1), kv_events=True)
        self.firsts: dict[str, float] = {}
        self.ends: dict[str, tuple[float, Finish]] = {}
        self.batches: list[KvBatch] = []
        self.gap_times: list[tuple[float, int]] = []

    def job(self, name: str, at: float, prompt: int, output: int, **more: object) -> Job:
        keys = tuple(hash((name, block)) for block in range(prompt // BLOCK))
        fields: dict[str, object] = {"keys": keys, **more}
        job = Job(name, self, prompt, range(prompt), output_tokens=output, **fields)  # type: ignore[arg-type]
        self.agenda.at(at, lambda now: self.gang.submit(int(name[-1]) % 2, job, now))
        return job

    def run(self) -> None:
        self.agenda.run(self._check)

    def _check(self) -> bool:
        assert not self.gang.fault()
        return False

    def pull(self, gang: Gang, job: Job, now: float) -> None:
        self.agenda.at(now + 3.0, lambda when: gang.pulled(job, "", when))

    def publish(self, gang: Gang, rank: int, batch: KvBatch, now: float) -> None:
        self.batches.append(batch)

    def poisoned(self, gang: Gang, job: Job, now: float) -> None:
        gang.die()

    def stepped(self, gang: Gang, began_at: float, now: float, tokens: int) -> None:
        pass

    def gaps(self, gang: Gang, gap_s: float, arrivals: int, tokens: int) -> None:
        self.gap_times.append((gap_s, arrivals))

    def on_first(self, job: Job, now: float) -> None:
        assert job.submission not in self.firsts
        self.firsts[job.submission] = now

    def on_end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        assert job.submission not in self.ends
        self.ends[job.submission] = now, finish


def test_a_lone_request_takes_its_prefill_and_its_steps() -> None:
    world = World()
    world.job("a0", 1.0, prompt=6, output=5)
    world.run()
    assert world.firsts == {"a0": 7.0}
    assert world.ends == {"a0": (8.0, Finish.STOP)}


def test_many_steps_are_one_event() -> None:
    world = World(blocks=10_000)
    world.job("a0", 0.0, prompt=1, output=20_001)
    world.run()
    assert world.ends["a0"][0] == 1.0 + 20_000 * STEP_S
    assert world.agenda.done < 6


def test_what_comes_amid_a_step_waits_for_its_end() -> None:
    world = World()
    world.job("a0", 0.0, prompt=1, output=100)
    world.job("b0", 1.6, prompt=2, output=1)  # amid the third step, which ends at 1.75
    world.run()
    assert world.firsts["b0"] == 1.75 + 2 * PREFILL_S + STEP_S


def test_a_rank_waits_for_the_prefill_of_another() -> None:
    world = World(ranks=2)
    world.job("a0", 0.0, prompt=1, output=10)
    world.job("b1", 2.0, prompt=8, output=1)
    world.run()
    alone = World()
    alone.job("a0", 0.0, prompt=1, output=10)
    alone.run()
    assert world.ends["a0"][0] == alone.ends["a0"][0] + 8 * PREFILL_S


def test_prompts_of_two_ranks_are_computed_in_one_pass() -> None:
    world = World(ranks=2)
    world.job("z0", 0.0, prompt=1, output=1)  # both wait for its end
    world.job("a0", 0.5, prompt=3, output=1)
    world.job("b1", 0.5, prompt=5, output=1)
    world.run()
    assert world.firsts == {"z0": 1.0, "a0": 6.0, "b1": 6.0}


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    world = World(chunk_tokens=4)
    world.job("a0", 0.0, prompt=2, output=9)
    world.job("b0", 2.1, prompt=9, output=1)
    world.run()
    # a chunk of 4 has room for the decode's token and 4, the least that is computed, of the prompt
    assert world.gap_times[1][0] == 4 * PREFILL_S + STEP_S


def test_prefill_first_lets_decodes_stand_still() -> None:
    world = World(scheduling=Scheduling.PREFILL_FIRST)
    world.job("a0", 0.0, prompt=1, output=5)
    world.job("b0", 1.4, prompt=4, output=1)
    world.run()
    assert world.firsts["b0"] == 1.5 + 4 * PREFILL_S
    assert (4 * PREFILL_S + STEP_S, 1) in world.gap_times


def test_stages_delay_the_first_token_and_not_the_next_prompt() -> None:
    world = World(stages=2)
    world.job("a0", 0.0, prompt=4, output=1)
    world.job("b0", 0.1, prompt=4, output=1)
    world.run()
    assert world.firsts == {"a0": 4.0, "b0": 6.0}


def test_a_prefix_that_is_cached_is_not_computed_again() -> None:
    world = World()
    keys = tuple(range(5))
    world.job("a0", 0.0, prompt=20, output=1, keys=keys)
    again = world.job("b0", 30.0, prompt=20, output=1, keys=keys)
    world.run()
    assert world.firsts["b0"] == 30.0 + 4 * PREFILL_S  # the last block, which has the last token
    assert again.cached_tokens == 16


def test_blocks_that_were_used_longest_ago_make_room() -> None:
    world = World(blocks=9)
    for at, name in enumerate(("a0", "b0", "c0")):
        world.job(name, 20.0 * at, prompt=16, output=1)
    world.run()
    stored = [event for batch in world.batches for event in batch.events]
    assert sum(isinstance(event, Stored) for event in stored) == 3
    assert len(world.gang.ranks[0].blocks.idle) <= 9
    assert len(stored) > 3


def test_decodes_that_outgrow_the_blocks_are_preempted_and_end_all_the_same() -> None:
    world = World(blocks=14)
    for at in range(3):
        world.job(f"{'abc'[at]}0", 0.0, prompt=4, output=30)
    world.run()
    assert world.gang.preempted
    assert [finish for _, finish in world.ends.values()] == [Finish.STOP] * 3


def test_a_request_that_no_rank_could_hold_is_refused() -> None:
    world = World(blocks=4)
    world.job("a0", 0.0, prompt=30, output=30)
    world.run()
    assert world.ends["a0"][1] is Finish.REFUSED


def test_pulled_kv_is_not_computed() -> None:
    world = World()
    world.job("a0", 0.0, prompt=100, output=4, source=KvSource.TRANSFER, pull=Pull("p", "x"))
    world.run()
    assert world.firsts["a0"] == 3.0 + STEP_S
    assert world.ends["a0"][0] == 3.0 + 4 * STEP_S


def test_produced_kv_is_held_until_it_is_let_go() -> None:
    world = World()
    world.job("a0", 0.0, prompt=8, output=1, source=KvSource.PRODUCE)
    world.agenda.at(20.0, lambda now: world.gang.let_go("a0", now))
    world.agenda.at(19.0, lambda now: used.append(len(world.gang.ranks[0].blocks.used)))
    used: list[int] = []
    world.run()
    assert used == [2]
    assert not world.gang.ranks[0].blocks.used


def test_an_aborted_request_gives_everything_back() -> None:
    world = World()
    job = world.job("a0", 0.0, prompt=4, output=100)
    world.agenda.at(9.1, lambda now: world.gang.abort(job, now))
    world.run()
    assert world.ends["a0"] == (9.25, Finish.ABORTED)
    assert not world.gang.ranks[0].blocks.used


def test_drafts_gain_tokens_by_chance() -> None:
    world = World(accepted=(0.8,), blocks=10_000)
    world.job("a0", 0.0, prompt=1, output=10_001)
    world.run()
    steps = (world.ends["a0"][0] - 1.0) / STEP_S
    assert steps == pytest.approx(10_000 / 1.8, rel=0.02)
    assert steps != round(10_000 / 1.8)


def test_a_slow_rank_slows_its_gang() -> None:
    world = World()
    world.gang.slow = 2.0
    world.job("a0", 0.0, prompt=4, output=5)
    world.run()
    assert world.ends["a0"][0] == 2 * (4 * PREFILL_S + 4 * STEP_S)


def test_an_engine_that_looks_seldom_lets_an_arrival_wait() -> None:
    world = World(receive_steps=10)
    world.job("a0", 0.0, prompt=1, output=100)  # decodes from 1.0 on, and looks at 3.5, 6.0 ...
    world.job("b0", 1.6, prompt=2, output=1)
    world.run()
    mixed_s = 2 * PREFILL_S + STEP_S
    assert world.firsts["b0"] == 3.5 + mixed_s


def test_an_idle_engine_looks_at_once() -> None:
    world = World(receive_steps=10)
    world.job("a0", 0.0, prompt=1, output=3)
    world.job("b0", 20.0, prompt=2, output=1)
    world.run()
    assert world.firsts["b0"] == 22.0


def test_an_engine_whose_last_decode_ends_looks_at_once() -> None:
    world = World(receive_steps=10)
    world.job("a0", 0.0, prompt=1, output=3)  # ends at 1.5
    world.job("b0", 1.1, prompt=2, output=1)
    world.run()
    assert world.firsts["b0"] == 3.5


def test_a_prompt_waits_for_one_on_the_other_rank() -> None:
    world = World(ranks=2, align_steps=40)
    world.job("y0", 0.0, prompt=1, output=200)
    world.job("z1", 0.0, prompt=1, output=200)
    world.job("a0", 2.0, prompt=3, output=1)
    world.job("b1", 4.0, prompt=5, output=1)
    world.run()
    both_at = 4.0 + 5 * PREFILL_S + STEP_S
    assert (world.firsts["a0"], world.firsts["b1"]) == (both_at + STEP_S, both_at + STEP_S)


def test_a_prompt_does_not_wait_for_ever() -> None:
    world = World(ranks=2, align_steps=40)
    world.job("y0", 0.0, prompt=1, output=200)
    world.job("z1", 0.0, prompt=1, output=200)
    world.job("a0", 2.0, prompt=3, output=1)
    world.run()
    # both decode from the step on that ends at 2.25, the first of forty
    assert world.firsts["a0"] == 2.25 + 39 * STEP_S + 3 * PREFILL_S + STEP_S


def test_an_answer_that_is_guaranteed_begins_when_all_of_it_has_room() -> None:
    for guaranteed in (False, True):
        world = World(blocks=24, guaranteed=guaranteed)
        world.job("a0", 0.0, prompt=4, output=60)  # 16 blocks and one more in the end
        world.job("b0", 0.0, prompt=4, output=40)  # 11, and one more
        world.run()
        begins_at = world.firsts["b0"] - world.ends["a0"][0]
        assert (begins_at > 0) == guaranteed
        assert not (guaranteed and world.gang.preempted)
