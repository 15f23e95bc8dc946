"""What every `Engine` must do; each engine's own test file runs this suite on it."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from orchestrator.codec import (
    Begin,
    NamedTool,
    Splitter,
    Tokenizer,
    ToolCallArguments,
    ToolCallStart,
    ToolDefinition,
    tool_grammar,
)
from orchestrator.core import token_ids
from orchestrator.engines import (
    End,
    Engine,
    EngineInfo,
    Finish,
    Grammar,
    GrammarKind,
    KvParams,
    KvSource,
    Sampling,
    Submit,
    TokenLogprob,
)


@dataclass
class Output:
    """What one request gave."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: End | None = None


class NotingListener:
    """Notes every output; `wrong` names what no engine may do."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        self.wrong: list[str] = []

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        output = self.outputs[request_id]
        if output.end is not None:
            self.wrong.append(f"{request_id}: tokens after the end")
        if not ids:
            self.wrong.append(f"{request_id}: an empty update")
        if len(logprobs) not in (0, len(ids)):
            self.wrong.append(f"{request_id}: {len(logprobs)} logprobs of {len(ids)} ids")
        output.ids += ids
        output.logprobs += logprobs

    def on_end(self, request_id: str, end: End) -> None:
        output = self.outputs[request_id]
        if output.end is not None:
            self.wrong.append(f"{request_id}: a second end")
        output.end = end


class Rig:
    """A started engine, its listener, and the loop they live on.

    `decoder` can pull the KV that `engine` produces; it is None if the two cannot transfer here.
    """

    def __init__(self, runner: asyncio.Runner, patience_s: float) -> None:
        self.listener = NotingListener()
        self.runner = runner
        self.engine: Engine
        self.info: EngineInfo
        self.decoder: Engine | None = None
        self._patience_s = patience_s
        self._made = 0

    def play(self, scene: Coroutine[None, None, None]) -> None:
        """Runs one scene, bounded; fails if the listener saw what no engine may do."""

        async def bounded() -> None:
            async with asyncio.timeout(self._patience_s):
                await scene

        self.runner.run(bounded())
        assert self.listener.wrong == []

    async def start(self, engine: Engine) -> EngineInfo:
        async with asyncio.timeout(20 * self._patience_s):
            return await engine.start(self.listener)

    def ask(
        self,
        prompt_ids: tuple[int, ...],
        sampling: Sampling,
        kv_source: KvSource = KvSource.LOCAL,
        kv_params: KvParams | None = None,
        cache_salt: str = "",
    ) -> str:
        """Submits a request of a new id."""
        self._made += 1
        request_id = f"request-{self._made}"
        self.listener.outputs[request_id] = Output()
        engine = self.engine
        if kv_source is KvSource.TRANSFER:
            assert self.decoder is not None
            engine = self.decoder
        engine.submit(
            Submit(
                request_id,
                token_ids(prompt_ids),
                sampling,
                kv_source,
                kv_params,
                cache_salt=cache_salt,
            )
        )
        return request_id

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits; the scene's own bound ends it."""
        while not condition():
            await asyncio.sleep(0.002)

    async def first_token(self, request_id: str) -> None:
        output = self.listener.outputs[request_id]
        await self.until(lambda: bool(output.ids) or output.end is not None)

    async def ended(self, request_id: str) -> tuple[list[int], End]:
        output = self.listener.outputs[request_id]
        await self.until(lambda: output.end is not None)
        assert output.end is not None
        return output.ids, output.end


def prompt(tokens: int, salt: int = 0) -> tuple[int, ...]:
    """Plain ids; another salt shares no prefix."""
    return tuple(1000 + (7 * index + 131 * salt) % 997 for index in range(tokens))


def greedy(max_tokens: int) -> Sampling:
    """Deterministic, and never stopped by a token."""
    return Sampling(max_tokens=max_tokens, temperature=0.0, top_p=1.0, stop_token_ids=())


class EngineContract:
    """A module that subclasses it has a fixture `rig`, a `Rig` with a started engine: a new one for
    each test, or one for all, in this order.
    """

    def test_the_info_describes_a_usable_engine(self, rig: Rig) -> None:
        info = rig.info
        assert info.engine
        assert info.model
        assert min(info.max_model_len, info.block_size, info.kv_blocks) >= 1
        assert rig.engine.failure() is None

    def test_max_tokens_is_kept_and_ends_with_length(self, rig: Rig) -> None:
        async def scene() -> None:
            for max_tokens in (1, 5):
                ids, end = await rig.ended(rig.ask(prompt(8), greedy(max_tokens)))
                assert (len(ids), end.finish) == (max_tokens, Finish.LENGTH)
                assert end.kv_params is None

        rig.play(scene())

    def test_greedy_runs_give_the_same_ids(self, rig: Rig) -> None:
        async def scene() -> None:
            first, _ = await rig.ended(rig.ask(prompt(20), greedy(12)))
            again, _ = await rig.ended(rig.ask(prompt(20), greedy(12)))
            assert first == again

        rig.play(scene())

    def test_a_stop_token_ends_with_stop_and_is_not_among_the_ids(self, rig: Rig) -> None:
        async def scene() -> None:
            ids, _ = await rig.ended(rig.ask(prompt(20), greedy(12)))
            stop = ids[6]
            sampling = Sampling(12, temperature=0.0, top_p=1.0, stop_token_ids=(stop,))
            stopped, end = await rig.ended(rig.ask(prompt(20), sampling))
            assert end.finish is Finish.STOP
            assert stopped == ids[: ids.index(stop)]

        rig.play(scene())

    def test_a_running_request_is_aborted_within_a_step(self, rig: Rig) -> None:
        async def scene() -> None:
            room = rig.info.max_model_len - 16
            request_id = rig.ask(prompt(8), greedy(room))
            await rig.first_token(request_id)
            steps = rig.engine.load().steps
            rig.engine.abort(request_id)
            _, end = await rig.ended(request_id)
            assert end.finish is Finish.ABORTED
            # a step under way when the abort came, the one that ends it, one scheduled ahead
            assert rig.engine.load().steps - steps <= 3

        rig.play(scene())

    def test_an_abort_before_the_first_step_ends_aborted(self, rig: Rig) -> None:
        async def scene() -> None:
            request_id = rig.ask(prompt(8), greedy(rig.info.max_model_len - 16))
            rig.engine.abort(request_id)
            _, end = await rig.ended(request_id)
            assert end.finish is Finish.ABORTED

        rig.play(scene())

    def test_aborts_of_unknown_and_ended_requests_are_ignored(self, rig: Rig) -> None:
        async def scene() -> None:
            request_id = rig.ask(prompt(8), greedy(1))
            await rig.ended(request_id)
            rig.engine.abort(request_id)
            rig.engine.abort("nobody")
            _, end = await rig.ended(rig.ask(prompt(8), greedy(1)))
            assert end.finish is Finish.LENGTH

        rig.play(scene())

    def test_logprobs_come_with_each_id_if_they_are_wanted(self, rig: Rig) -> None:
        async def scene() -> None:
            wishes = (None, 0, 3, 20)
            asked = [
                rig.ask(prompt(20), msgspec.structs.replace(greedy(4), logprobs=wish))
                for wish in wishes
            ]
            ends = [await rig.ended(request_id) for request_id in asked]
            assert all(ids == ends[0][0] for ids, _ in ends), "they change no id"
            for wish, request_id in zip(wishes, asked, strict=True):
                output = rig.listener.outputs[request_id]
                assert len(output.logprobs) == (0 if wish is None else 4)
                for id_, logprob in zip(output.ids, output.logprobs, strict=False):
                    assert logprob.logprob < 0
                    assert len(logprob.top) == wish
                    values = [value for _, value in logprob.top]
                    assert values == sorted(values, reverse=True), output
                    if wish:
                        assert logprob.top[0] == (id_, logprob.logprob), "greedy draws the best"

        rig.play(scene())

    def test_too_many_logprobs_are_refused(self, rig: Rig) -> None:
        async def scene() -> None:
            sampling = msgspec.structs.replace(greedy(4), logprobs=21)
            ids, end = await rig.ended(rig.ask(prompt(20), sampling))
            assert (ids, end.finish) == ([], Finish.REFUSED)
            assert end.cause

        rig.play(scene())

    def test_a_stop_token_has_no_logprob(self, rig: Rig) -> None:
        async def scene() -> None:
            ids, _ = await rig.ended(rig.ask(prompt(20), greedy(12)))
            stop = ids[6]
            sampling = msgspec.structs.replace(greedy(12), stop_token_ids=(stop,), logprobs=1)
            request_id = rig.ask(prompt(20), sampling)
            stopped, _ = await rig.ended(request_id)
            assert len(rig.listener.outputs[request_id].logprobs) == len(stopped)

        rig.play(scene())

    def test_penalties_are_taken(self, rig: Rig) -> None:
        async def scene() -> None:
            sampling = msgspec.structs.replace(
                greedy(3), presence_penalty=1.5, frequency_penalty=-1.5
            )
            ids, end = await rig.ended(rig.ask(prompt(20), sampling))
            assert (len(ids), end.finish) == (3, Finish.LENGTH)

        rig.play(scene())

    @pytest.mark.parametrize("excess", [0, 1, 100])
    def test_a_prompt_that_leaves_no_room_is_refused(self, rig: Rig, excess: int) -> None:
        async def scene() -> None:
            request_id = rig.ask(prompt(rig.info.max_model_len + excess), greedy(1))
            ids, end = await rig.ended(request_id)
            assert (ids, end.finish) == ([], Finish.REFUSED)
            assert end.cause

        rig.play(scene())

    def test_malformed_requests_are_refused(self, rig: Rig) -> None:
        async def scene() -> None:
            for prompt_ids in ((), (5, 1 << 30), (5, (1 << 32) - 1)):
                ids, end = await rig.ended(rig.ask(prompt_ids, greedy(1)))
                assert (ids, end.finish) == ([], Finish.REFUSED)
                assert end.cause

        rig.play(scene())

    def test_the_context_length_ends_a_request_with_length(self, rig: Rig) -> None:
        async def scene() -> None:
            room = 3
            tokens = rig.info.max_model_len - room
            ids, end = await rig.ended(rig.ask(prompt(tokens), greedy(50)))
            assert end.finish is Finish.LENGTH
            assert len(ids) == room

        rig.play(scene())

    def test_many_requests_at_once_end_once_each_with_all_their_tokens(self, rig: Rig) -> None:
        async def scene() -> None:
            asked = [rig.ask(prompt(8 + salt, salt), greedy(1 + salt % 7)) for salt in range(48)]
            for salt, request_id in enumerate(asked):
                ids, end = await rig.ended(request_id)
                assert (len(ids), end.finish) == (1 + salt % 7, Finish.LENGTH)

        rig.play(scene())

    def test_the_load_shows_what_runs_and_its_steps_grow(self, rig: Rig) -> None:
        async def scene() -> None:
            before = rig.engine.load()
            request_id = rig.ask(prompt(8), greedy(rig.info.max_model_len - 16))
            await rig.first_token(request_id)
            await rig.until(lambda: rig.engine.load().running == 1)
            assert 0 < rig.engine.load().kv_usage <= 1
            await rig.until(lambda: rig.engine.load().steps > before.steps + 2)
            rig.engine.abort(request_id)
            await rig.ended(request_id)
            await rig.until(lambda: rig.engine.load().running == 0)
            assert rig.engine.load().waiting == 0

        rig.play(scene())

    def test_the_metrics_are_prometheus_text(self, rig: Rig) -> None:
        lines = rig.engine.metrics().decode().splitlines()
        assert any(line.startswith("# TYPE vllm:num_requests_running gauge") for line in lines)

    def test_produced_kv_is_pulled_once_and_gives_the_ids_of_a_local_run(self, rig: Rig) -> None:
        if rig.decoder is None:
            pytest.skip("this engine cannot transfer KV here")

        async def scene() -> None:
            asked = prompt(40, salt=3)
            local, _ = await rig.ended(rig.ask(asked, greedy(6)))
            produced, end = await rig.ended(rig.ask(asked, greedy(6), KvSource.PRODUCE))
            assert produced == local[:1]
            assert end.kv_params is not None
            pulled = rig.ask(asked, greedy(6), KvSource.TRANSFER, end.kv_params)
            ids, last = await rig.ended(pulled)
            assert ids == local
            assert last.finish is Finish.LENGTH
            # An engine may compute the last token again, to have what to draw from.
            assert last.cached_tokens in {len(asked) - 1, len(asked)}

        rig.play(scene())

    def test_stop_ends_every_request_and_may_be_called_twice(self, rig: Rig) -> None:
        """The last one: an engine that is shared by the tests is gone after it."""

        async def scene() -> None:
            room = rig.info.max_model_len - 16
            asked = [rig.ask(prompt(8, salt), greedy(room)) for salt in range(3)]
            await rig.first_token(asked[0])
            await rig.engine.stop()
            for request_id in asked:
                output = rig.listener.outputs[request_id]
                assert output.end is not None
                assert output.end.finish is Finish.ABORTED
            await rig.engine.stop()

        rig.play(scene())


SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
    "required": ["sure", "colour"],
    "additionalProperties": False,
}
BY_SCHEMA = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
THINK, END_THINK = 128798, 128799
ANSWER_TOKENS = 120  # random weights write blanks wherever JSON lets them


def _constrained(**changes: object) -> Sampling:
    sampling = Sampling(ANSWER_TOKENS, temperature=0.0, top_p=1.0)
    return msgspec.structs.replace(sampling, **changes)


def _asked(tokenizer: Tokenizer, *, closed: bool) -> tuple[int, ...]:
    """A question, and an open or an empty thought."""
    question = (0, 128803, *tokenizer.encode("Which colour?"), 128804)
    if closed:
        blank = tokenizer.encode("\n\n")
        return (*question, THINK, *blank, END_THINK, *blank)
    return (*question, THINK, *tokenizer.encode("\n"))


def _check_schema(text: str) -> None:
    answer = json.loads(text)
    assert sorted(answer) == ["colour", "sure"]
    assert isinstance(answer["sure"], bool)
    assert answer["colour"] in ("red", "green")


class ConstraintContract:
    """What an engine whose `EngineInfo.grammar` holds must do. As `EngineContract`, with a fixture
    `tokenizer`: R1's.
    """

    def test_a_grammar_begins_at_once_behind_a_thought_that_the_prompt_closes(
        self, rig: Rig, tokenizer: Tokenizer
    ) -> None:
        async def scene() -> None:
            sampling = _constrained(grammar=BY_SCHEMA)
            ids, end = await rig.ended(rig.ask(_asked(tokenizer, closed=True), sampling))
            assert end.finish is Finish.STOP
            _check_schema(tokenizer.decode(ids))

        rig.play(scene())

    def test_a_thinking_budget_closes_the_thought_and_the_grammar_begins_behind_it(
        self, rig: Rig, tokenizer: Tokenizer
    ) -> None:
        async def scene() -> None:
            sampling = _constrained(grammar=BY_SCHEMA, thinking_budget=5)
            ids, end = await rig.ended(rig.ask(_asked(tokenizer, closed=False), sampling))
            assert end.finish is Finish.STOP
            assert ids.index(END_THINK) == 4, "the newline of the prompt is a part of the thought"
            _check_schema(tokenizer.decode(ids[5:]))

        rig.play(scene())

    def test_a_budget_that_the_prompt_has_used_up_closes_the_thought_at_once(
        self, rig: Rig, tokenizer: Tokenizer
    ) -> None:
        async def scene() -> None:
            asked = _asked(tokenizer, closed=False)
            for budget in (0, 1):
                ids, _ = await rig.ended(rig.ask(asked, _constrained(thinking_budget=budget)))
                assert ids[0] == END_THINK
            resumed = (*asked, 1000, 1001, 1002)
            ids, _ = await rig.ended(rig.ask(resumed, _constrained(thinking_budget=4)))
            assert ids[0] == END_THINK

        rig.play(scene())

    def test_a_budget_is_for_thoughts_only(self, rig: Rig, tokenizer: Tokenizer) -> None:
        async def scene() -> None:
            asked = _asked(tokenizer, closed=True)
            free, _ = await rig.ended(rig.ask(asked, greedy(8)))
            ids, _ = await rig.ended(
                rig.ask(asked, msgspec.structs.replace(greedy(8), thinking_budget=2))
            )
            assert ids == free

        rig.play(scene())

    def test_json_of_any_kind_is_an_object(self, rig: Rig, tokenizer: Tokenizer) -> None:
        async def scene() -> None:
            sampling = _constrained(grammar=Grammar(GrammarKind.JSON_OBJECT))
            ids, end = await rig.ended(rig.ask(_asked(tokenizer, closed=True), sampling))
            text = tokenizer.decode(ids)
            assert text.lstrip().startswith("{")
            if end.finish is Finish.STOP:  # random weights may write a key without end
                assert isinstance(json.loads(text), dict)

        rig.play(scene())

    def test_a_structural_tag_makes_tool_calls(self, rig: Rig, tokenizer: Tokenizer) -> None:
        tool = ToolDefinition("paint", "Paints.", json.dumps(SCHEMA))
        tag = tool_grammar(tokenizer, [tool], NamedTool("paint"))

        async def scene() -> None:
            # more tokens: vLLM cannot forbid blanks inside of tags
            grammar = Grammar(GrammarKind.STRUCTURAL_TAG, tag)
            sampling = _constrained(grammar=grammar, max_tokens=600)
            ids, end = await rig.ended(rig.ask(_asked(tokenizer, closed=True), sampling))
            assert end.finish is Finish.STOP
            splitter = Splitter(tokenizer, begin=Begin.ANSWER)
            pieces = (*splitter.push(ids), *splitter.end())
            assert pieces[0] == ToolCallStart(0, "paint")
            arguments = [piece.text for piece in pieces if isinstance(piece, ToolCallArguments)]
            assert len(arguments) == len(pieces) - 1
            _check_schema("".join(arguments))

        rig.play(scene())


class RefusalContract:
    """How every engine that takes constraints refuses bad ones. As `ConstraintContract`."""

    @pytest.mark.parametrize(
        "grammar",
        [
            Grammar(GrammarKind.JSON_SCHEMA, ""),
            Grammar(GrammarKind.JSON_SCHEMA, "{"),
            Grammar(GrammarKind.JSON_SCHEMA, '{"type": "nonsense"}'),
            Grammar(GrammarKind.STRUCTURAL_TAG, "{"),
        ],
        ids=["empty", "no JSON", "no schema", "no tag"],
    )
    def test_a_bad_grammar_is_refused_and_harms_nobody_else(
        self, rig: Rig, grammar: Grammar
    ) -> None:
        async def scene() -> None:
            other = rig.ask(prompt(8), greedy(40))
            ids, end = await rig.ended(rig.ask(prompt(8), _constrained(grammar=grammar)))
            assert (ids, end.finish) == ([], Finish.REFUSED)
            assert end.cause
            assert (await rig.ended(other))[1].finish is Finish.LENGTH
            assert rig.engine.failure() is None

        rig.play(scene())


class PrefixContract:
    """What an engine that keeps the KV of earlier prompts must do."""

    def test_prefix_hits_are_reported_and_kept_apart_by_salt(self, rig: Rig) -> None:
        async def scene() -> None:
            tokens = 4 * rig.info.block_size
            cached: list[tuple[str, bool]] = []
            for salt in ("", "", "a", "a", "b", ""):
                request_id = rig.ask(prompt(tokens, salt=9), greedy(2), cache_salt=salt)
                _, end = await rig.ended(request_id)
                assert 0 <= end.cached_tokens < tokens
                cached.append((salt, end.cached_tokens > 0))
            assert cached == [
                ("", False),
                ("", True),
                ("a", False),
                ("a", True),
                ("b", False),
                ("", True),
            ]

        rig.play(scene())
