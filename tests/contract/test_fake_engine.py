"""The fake engine keeps the contract of engines, and its script."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
import uvloop

from orchestrator.codec import Tokenizer
from orchestrator.core import EngineStartError
from orchestrator.engines import (
    Author,
    FakeEngine,
    FakeEngineSpec,
    FakeScript,
    Finish,
    KvParams,
    KvSource,
    Sampling,
)
from orchestrator.engines.fake_script import recital
from orchestrator.engines.scripted_model import ScriptedModel
from tests.contract.engine_contract import (
    ConstraintContract,
    EngineContract,
    PrefixContract,
    RefusalContract,
    Rig,
    greedy,
    prompt,
)

QUICK = FakeEngineSpec(
    step_s=0.001, prefill_s_per_token=0, max_model_len=1024, block_size=16, max_running=16
)
CHAT = (0, 128803, 3000, 3001, 3002, 128804, 128798, 201)  # "<User>abc<Assistant><think>\n"
STOP = Sampling(100)


def _rigged(spec: FakeEngineSpec, author: Author | None = None) -> Iterator[Rig]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig = Rig(runner, patience_s=5)
        rig.engine = FakeEngine(spec, "producer", author)
        rig.decoder = FakeEngine(spec, "consumer", author)
        rig.info = runner.run(rig.start(rig.engine))
        runner.run(rig.start(rig.decoder))
        yield rig
        runner.run(rig.engine.stop())
        runner.run(rig.decoder.stop())


class TestFakeEngine(EngineContract):
    """The shared suite."""


class TestFakeEngineWithAuthor(ConstraintContract, RefusalContract, EngineContract):
    """The same with what a scripted model writes."""

    @pytest.fixture
    def rig(self, tokenizer: Tokenizer) -> Iterator[Rig]:
        yield from _rigged(QUICK, ScriptedModel(tokenizer))


class TestFakeEngineWithMemory(PrefixContract, EngineContract):
    """The same with a memory of prompts."""

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        yield from _rigged(msgspec.structs.replace(QUICK, prefix_blocks=256))


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from _rigged(getattr(request, "param", QUICK))


def with_spec(**changes: object) -> pytest.MarkDecorator:
    """Runs a test on an engine of other options."""
    options = {name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | changes
    return pytest.mark.parametrize("rig", [FakeEngineSpec(**options)], indirect=True)


def test_a_chat_is_answered_with_a_thought_its_mark_and_the_users_words(rig: Rig) -> None:
    async def scene() -> None:
        ids, end = await rig.ended(rig.ask(CHAT, STOP))
        assert end.finish is Finish.STOP
        assert ids[:3] == [3000, 3001, 3002]
        assert ids.index(128799) == 16
        assert ids[17:20] == [3000, 3001, 3002]
        assert len(ids) == 16 + 1 + 32

    rig.play(scene())


def test_a_request_that_moves_goes_on_where_it_was() -> None:
    cycle, first = recital(QUICK, CHAT)
    assert first == 0
    for emitted in range(len(cycle)):
        assert recital(QUICK, CHAT + cycle[:emitted]) == (cycle, emitted)


@with_spec(script=FakeScript(thought_ids=(7, 8), answer_ids=(9,)))
def test_a_script_is_recited_whatever_the_prompt(rig: Rig) -> None:
    async def scene() -> None:
        for prompt_ids in (CHAT, prompt(5)):
            ids, end = await rig.ended(rig.ask(prompt_ids, STOP))
            assert (ids, end.finish) == ([7, 8, 128799, 9], Finish.STOP)

    rig.play(scene())


@with_spec(thought_tokens=100)
def test_a_recital_keeps_to_a_thinking_budget(rig: Rig) -> None:
    async def scene() -> None:
        ids, _ = await rig.ended(rig.ask(CHAT, Sampling(100, thinking_budget=7)))
        assert ids.index(128799) == 6, "the newline of the prompt is a part of the thought"
        assert len(ids) == 6 + 1 + 32

    rig.play(scene())


async def _produced(rig: Rig) -> KvParams:
    _, end = await rig.ended(rig.ask(prompt(40), greedy(6), KvSource.PRODUCE))
    assert end.kv_params is not None
    assert end.kv_params["remote_engine_id"] == "producer"
    assert end.kv_params["remote_num_tokens"] == 40
    return end.kv_params


async def _pull_fails(rig: Rig, asked: tuple[int, ...], params: KvParams, cause: str) -> None:
    ids, end = await rig.ended(rig.ask(asked, greedy(6), KvSource.TRANSFER, params))
    assert (ids, end.finish, end.cause) == ([], Finish.FAILED, f"KV transfer: {cause}")


def test_kv_is_given_once(rig: Rig) -> None:
    async def scene() -> None:
        params = await _produced(rig)
        _, end = await rig.ended(rig.ask(prompt(41), greedy(1), KvSource.TRANSFER, params))
        assert (end.finish, end.cached_tokens) == (Finish.LENGTH, 40)
        await _pull_fails(rig, prompt(41), params, "the KV was pulled before")

    rig.play(scene())


def test_kv_of_another_prompt_is_not_given(rig: Rig) -> None:
    async def scene() -> None:
        params = await _produced(rig)
        await _pull_fails(rig, prompt(40, salt=1), params, "the KV is of another prompt")
        await _pull_fails(rig, prompt(9), params, "the prompt is shorter than the KV to pull")

    rig.play(scene())


def test_kv_of_an_engine_that_was_replaced_is_not_given(rig: Rig) -> None:
    async def scene() -> None:
        params = {**await _produced(rig), "remote_engine_id": "before"}
        await _pull_fails(rig, prompt(40), params, "this is engine producer, not before")

    rig.play(scene())


@with_spec(kv_hold_s=0.0)
def test_kv_that_was_held_for_too_long_is_gone_and_its_blocks_are_free(rig: Rig) -> None:
    async def scene() -> None:
        params = await _produced(rig)
        await _pull_fails(rig, prompt(40), params, "the KV is unknown, or was held for too long")
        assert rig.engine.load().kv_usage == 0

    rig.play(scene())


@with_spec(kv_pull_s=0.2)
def test_a_dead_producer_fails_the_pull(rig: Rig) -> None:
    async def scene() -> None:
        params = await _produced(rig)
        await rig.engine.stop()
        await _pull_fails(rig, prompt(40), params, "the rank that holds the KV does not answer")

    rig.play(scene())


def test_held_kv_takes_blocks_until_it_is_pulled(rig: Rig) -> None:
    async def scene() -> None:
        params = await _produced(rig)
        assert rig.engine.load().kv_usage > 0
        await rig.ended(rig.ask(prompt(40), greedy(1), KvSource.TRANSFER, params))
        assert rig.engine.load().kv_usage == 0

    rig.play(scene())


@with_spec(kv_blocks=4)
def test_requests_wait_in_order_for_kv_blocks(rig: Rig) -> None:
    async def scene() -> None:
        asked = [rig.ask(prompt(16, salt), greedy(16)) for salt in range(5)]  # 2 blocks each
        running_max = 0
        while not all(rig.listener.outputs[request_id].end for request_id in asked):
            running_max = max(running_max, rig.engine.load().running)
            await asyncio.sleep(0)
        assert running_max == 2
        for request_id in asked:
            assert (await rig.ended(request_id))[1].finish is Finish.LENGTH
        _, end = await rig.ended(rig.ask(prompt(100), greedy(1)))
        assert end.finish is Finish.REFUSED

    rig.play(scene())


@with_spec(die_after_tokens=10)
def test_a_scripted_death_ends_all_failed_and_stays(rig: Rig) -> None:
    async def scene() -> None:
        asked = [rig.ask(prompt(8, salt), greedy(100)) for salt in range(3)]
        for request_id in asked:
            assert (await rig.ended(request_id))[1].finish is Finish.FAILED
        assert rig.engine.failure() == "died after 10 tokens, by its script"
        assert sum(len(output.ids) for output in rig.listener.outputs.values()) == 10
        _, end = await rig.ended(rig.ask(prompt(8), greedy(1)))
        assert end.finish is Finish.FAILED

    rig.play(scene())


@with_spec(hang_after_tokens=10)
def test_a_scripted_hang_takes_no_more_steps_and_says_nothing(rig: Rig) -> None:
    async def scene() -> None:
        request_id = rig.ask(prompt(8), greedy(100))
        await rig.until(lambda: len(rig.listener.outputs[request_id].ids) == 10)
        rig.engine.abort(request_id)
        await asyncio.sleep(0.02)
        assert rig.listener.outputs[request_id].end is None
        assert rig.engine.failure() is None
        await rig.engine.stop()
        assert (await rig.ended(request_id))[1].finish is Finish.ABORTED

    rig.play(scene())


@with_spec(fail_requests=0.5, seed=7)
def test_scripted_failures_are_the_seeds_alone(rig: Rig) -> None:
    async def scene() -> None:
        again = FakeEngine(FakeEngineSpec(fail_requests=0.5, seed=7, step_s=0.001), "again")
        await rig.start(again)
        asked = [rig.ask(prompt(8), greedy(8)) for _ in range(40)]
        fates = [await rig.ended(request_id) for request_id in asked]
        rig.engine, first = again, rig.engine
        asked = [rig.ask(prompt(8), greedy(8)) for _ in range(40)]
        assert [await rig.ended(request_id) for request_id in asked] == fates
        rig.engine = first
        await again.stop()
        failed = sum(end.finish is Finish.FAILED for _, end in fates)
        assert 8 < failed < 32

    rig.play(scene())


def test_a_refused_start_says_why() -> None:
    async def scene() -> None:
        engine = FakeEngine(FakeEngineSpec(refuse_start="no GPU is free"))
        with pytest.raises(EngineStartError) as raised:
            await engine.start(Rig(asyncio.Runner(), 1).listener)
        assert raised.value.cause == "no GPU is free"

    asyncio.run(scene())
