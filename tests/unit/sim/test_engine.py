"""The simulated engine's arithmetic."""

import pytest

from orchestrator.routing import KvBatch, Removed, Stored, prompt_keys
from orchestrator.sim import Agenda, EngineModel, HitAt, Job, Outlet, SimEngine

MODEL = EngineModel(
    blocks=10, block_tokens=4, prefill_base_s=1.0, prefill_token_s=0.5, step_s=2.0, slots=2
)


class World:
    def __init__(self, model: EngineModel = MODEL) -> None:
        self.agenda = Agenda()
        self.batches: list[KvBatch] = []
        outlet = Outlet(lambda job, now: None, lambda job, now: None, self._batch)
        self.engine = SimEngine(model, self.agenda, outlet)
        self.model = model
        self.jobs: list[Job] = []

    def _batch(self, batch: KvBatch, now: float) -> None:
        self.batches.append(batch)

    def job(self, at: float, prompt: tuple[int, ...], output: int = 1) -> Job:
        keys = prompt_keys(prompt, self.model.block_tokens)
        job = Job(len(self.jobs), prompt, keys, output, at)
        self.jobs.append(job)
        self.agenda.at(at, lambda now: self.engine.submit(job, now))
        return job


def test_prefills_wait_for_each_other() -> None:
    world = World()
    first = world.job(0.0, (1, 2, 3, 4))
    second = world.job(0.5, (5, 6, 7, 8, 9, 10))
    world.agenda.run()
    assert first.first_at == pytest.approx(3.0)
    assert second.first_at == pytest.approx(7.0)
    assert world.engine.busy_s == pytest.approx(7.0)


def test_a_prompt_that_was_computed_costs_its_last_block_only() -> None:
    world = World()
    world.job(0.0, tuple(range(8)))
    again = world.job(10.0, tuple(range(8)))
    longer = world.job(20.0, tuple(range(12)))
    world.agenda.run()
    assert again.cached_tokens == 4, "the last token is computed always"
    assert longer.cached_tokens == 8
    assert again.first_at - again.arrived_at == pytest.approx(3.0)


def test_when_it_looks_up_decides_whether_what_is_under_way_is_a_hit() -> None:
    for hit_at, cached in ((HitAt.ADMISSION, 0), (HitAt.PREFILL, 4)):
        world = World(EngineModel(10, 4, 1.0, 0.5, hit_at=hit_at))
        world.job(0.0, tuple(range(8)))
        second = world.job(0.1, tuple(range(8)))
        world.agenda.run()
        assert second.cached_tokens == cached


def test_a_step_gives_every_running_request_a_token() -> None:
    world = World()
    alone = world.job(0.0, (1, 2), output=4)  # first token at 2, then 3 steps of 2 s
    world.agenda.run()
    assert alone.ended_at == pytest.approx(2.0 + 6.0)


def test_a_larger_batch_makes_slower_steps() -> None:
    world = World(EngineModel(10, 4, 0.0, 0.0, step_s=1.0, step_request_s=0.5))
    jobs = [world.job(0.0, (1, 2), output=11) for _ in range(2)]
    world.agenda.run()
    assert [job.ended_at for job in jobs] == pytest.approx([20.0, 20.0])


def test_a_prefill_holds_up_those_that_decode() -> None:
    world = World(EngineModel(10, 4, 0.0, 1.0, step_s=1.0, stall=1.0))
    running = world.job(0.0, (1,), output=11)
    world.job(5.0, (2, 3, 4))
    world.agenda.run()
    assert running.ended_at == pytest.approx(1.0 + 10.0 + 3.0)


def test_without_a_slot_a_request_waits_for_an_end() -> None:
    world = World()
    world.job(0.0, (1, 2), output=3)
    world.job(0.0, (3, 4), output=3)
    third = world.job(0.0, (5, 6))
    world.agenda.run()
    assert third.first_at == pytest.approx(min(j.ended_at for j in world.jobs[:2]) + 2.0)


def test_the_oracle_sees_that_there_is_no_slot() -> None:
    world = World()
    for _ in range(2):
        world.job(0.0, (1, 2), output=5)
    seen: list[float] = []
    world.agenda.at(4.5, lambda now: seen.append(world.engine.wait_s(now)))
    third = world.job(4.5, (5, 6))
    world.agenda.run()
    assert third.first_at == pytest.approx(4.5 + seen[0] + 2.0)


def test_publishes_what_enters_and_leaves_its_cache_in_order() -> None:
    world = World(EngineModel(3, 4, 1.0, 0.5))
    world.job(0.0, tuple(range(8)))
    world.job(10.0, (0, 1, 2, 3, 9, 9, 9, 9, 8, 8, 8, 8))
    world.agenda.run()
    assert [batch.sequence for batch in world.batches] == [0, 1]
    (first,) = world.batches[0].events
    second, gone = world.batches[1].events
    assert isinstance(first, Stored)
    assert isinstance(second, Stored)
    assert isinstance(gone, Removed)
    assert list(first.token_ids) == list(range(8))
    assert (first.parent, second.parent) == (None, first.hashes[0])
    assert gone.hashes == [first.hashes[1]], "the block that was used longest ago"
    assert len(second.hashes) == 2


@pytest.mark.parametrize("hit_at", HitAt)
def test_the_oracles_view_is_what_will_happen(hit_at: HitAt) -> None:
    world = World(EngineModel(50, 4, 1.0, 0.5, hit_at=hit_at))
    for number, prompt in enumerate((range(8), range(12), range(4, 24), range(12))):
        world.job(0.1 * number, tuple(prompt))
    asked = tuple(range(16))
    seen: list[tuple[float, int]] = []

    def look(now: float) -> None:
        hit = world.engine.hit_tokens(prompt_keys(asked, 4))
        seen.append((world.engine.wait_s(now), hit))

    world.agenda.at(1.0, look)
    last = world.job(1.0, asked)
    world.agenda.run()
    ((wait_s, hit),) = seen
    assert last.cached_tokens == hit
    assert last.first_at == pytest.approx(1.0 + wait_s + 1.0 + 0.5 * (16 - hit))
