"""Faults that others have had with R1's API, end to end, by their numbers in our list of traps.

Those that the codec alone can show are in tests/unit/codec/test_traps.py. Here a client asks the
real gateway, and a scripted model of R1's kind answers from the ids that reach its engine.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from orchestrator.codec import Mark, Tokenizer
from orchestrator.core import KvSource, Role, SpecError
from orchestrator.engines import FakeEngineSpec, Submit
from orchestrator.engines.scripted_model import ScriptedModel
from orchestrator.gateway import load_tokenizers
from orchestrator.spec import (
    ApiSpec,
    EngineKind,
    EngineSpec,
    GatewaySpec,
    HandoffSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

PATH = "/chat/completions"
NAME, R1, ZERO = "DeepSeek-R1-0528", "DeepSeek-R1", "DeepSeek-R1-Zero"
FAST = FakeEngineSpec(step_s=0.0, prefill_s_per_token=0.0)
OPEN = ApiSpec()
one_loop = pytest.mark.asyncio(loop_scope="module")  # the shared gateway's
THOUGHT = " step by step"  # of three tokens
Json = dict[str, Any]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


@dataclass
class Author:
    """The scripted model, and what it was asked."""

    model: ScriptedModel
    submits: list[Submit] = field(default_factory=list)

    def __call__(self, submit: Submit) -> Sequence[int]:
        self.submits.append(submit)
        return self.model(submit)

    @property
    def decoded(self) -> Submit:
        """The last submit that drew an answer."""
        return next(s for s in reversed(self.submits) if s.kv_source is not KvSource.PRODUCE)


@dataclass
class World:
    """One model of a gateway that has a unified rank for each."""

    running: GatewayStack
    author: Author
    name: str

    @property
    def rank(self) -> Rank:
        return self.running.ranks[self.name]

    async def post(self, question: str = "", **fields: object) -> httpx.Response:
        body = {"model": self.name, "messages": [{"role": "user", "content": question}]} | fields
        return await self.running.http.post(PATH, json=body)

    async def choice(self, question: str = "", **fields: object) -> Json:
        """The message of a whole completion, and its finish reason and usage beside."""
        answer = await self.post(question, **fields)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        choice: Json = body["choices"][0]["message"]
        return choice | {"finish": body["choices"][0]["finish_reason"], "usage": body["usage"]}

    async def metrics(self) -> str:
        return (await self.running.http.get("/metrics")).text


@asynccontextmanager
async def worlds(
    tokenizer: Tokenizer,
    logs: Path,
    pace: FakeEngineSpec = FAST,
    *,
    api: ApiSpec = OPEN,
    names: Sequence[str] = (NAME,),
    keep_alive_s: float = 10.0,
) -> AsyncIterator[dict[str, World]]:
    engine = EngineSpec(kind=EngineKind.FAKE)
    pools = (PoolSpec(Role.UNIFIED),)
    spec = Spec(
        models=tuple(ModelSpec("unused", pools, name, engine=engine) for name in names),
        api=api,
        gateway=GatewaySpec(keep_alive_s=keep_alive_s),
        handoff=HandoffSpec(resume_wait_s=0.1),
    )
    model = ScriptedModel(tokenizer, opens_thoughts=True)
    authors = {name: Author(model) for name in names}
    ranks = [Rank(Role.UNIFIED, name, pace, model=name, author=authors[name]) for name in names]
    async with gateway_stack(spec, dict.fromkeys(names, tokenizer), ranks, logs) as running:
        yield {name: World(running, authors[name], name) for name in names}


@asynccontextmanager
async def world(
    tokenizer: Tokenizer,
    logs: Path,
    pace: FakeEngineSpec = FAST,
    *,
    api: ApiSpec = OPEN,
    keep_alive_s: float = 10.0,
) -> AsyncIterator[World]:
    """One of its own, for what the shared one has not."""
    async with worlds(tokenizer, logs, pace, api=api, keep_alive_s=keep_alive_s) as there:
        yield there[NAME]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, World]]:
    """The models that the tests ask, in one gateway, since each would take half a second."""
    async with worlds(tokenizer, tmp_path_factory.mktemp("logs"), names=(NAME, R1, ZERO)) as there:
        yield there


def corrupted(folder: Path, tokenizer_dir: Path, **parts: object) -> Spec:
    """A spec whose checkpoint has R1's tokenizer.json with other parts."""
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(file))
    engine = EngineSpec(kind=EngineKind.FAKE)
    pools = (PoolSpec(Role.UNIFIED),)
    return Spec(models=(ModelSpec(str(folder), pools, NAME, engine=engine),))


def test_t1_the_gateway_does_not_start_with_a_tokenizer_that_loses_blanks(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    spec = corrupted(tmp_path, tokenizer_dir, pre_tokenizer=metaspace | {"split": False})
    with pytest.raises(SpecError, match="turns the text") as refused:
        load_tokenizers(spec)
    assert str(tmp_path / "tokenizer.json") in refused.value.cause
    assert "published with the checkpoint" in refused.value.cure


def test_t1_nor_with_a_config_that_would_make_the_engine_lose_them(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    spec = corrupted(tmp_path, tokenizer_dir)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    assert NAME in load_tokenizers(spec), "an engine that reads no config has no such fault"
    models = tuple(replace(model, engine=EngineSpec()) for model in spec.models)
    with pytest.raises(SpecError, match="LlamaTokenizerFast") as refused:
        load_tokenizers(replace(spec, models=models))
    assert "PreTrainedTokenizerFast" in refused.value.cause


def test_t16_the_gateway_does_not_start_where_the_end_of_thought_is_several_tokens(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    kept = [token for token in file["added_tokens"] if token["content"] != Mark.END_THINK]
    spec = corrupted(tmp_path, tokenizer_dir, added_tokens=kept)
    with pytest.raises(SpecError, match="no single token for </think>"):
        load_tokenizers(spec)


def test_t16_nor_without_a_tokenizer(tmp_path: Path, tokenizer_dir: Path) -> None:
    spec = corrupted(tmp_path, tokenizer_dir)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"there is no tokenizer\.json") as refused:
        load_tokenizers(spec)
    assert "r1-serve checkpoint" in refused.value.cure


@one_loop
async def test_t2_reasoning_is_counted_though_the_template_opened_it(
    tokenizer: Tokenizer, shared: dict[str, World]
) -> None:
    it = shared[R1]
    message = await it.choice("THINK 20 LONG 5")
    ids = it.author.decoded.prompt_ids
    assert list(ids[-2:]) == tokenizer.assemble([Mark.THINK, "\n"])
    usage = message["usage"]
    thought = len(tokenizer.encode(f"{message['reasoning_content']}\n")) + 1
    assert usage["completion_tokens_details"] == {"reasoning_tokens": thought}
    assert usage["completion_tokens"] == thought + 1 + 5


@one_loop
@pytest.mark.parametrize("command", ["", "TOOL-IN-THINK "])
async def test_t3_t4_arguments_over_several_lines_arrive_wherever_the_call_is_made(
    shared: dict[str, World], command: str
) -> None:
    it = shared[NAME]
    message = await it.choice(f"{command}weather in Ulm for 3 days", tools=[WEATHER])
    assert message["finish"] == "tool_calls"
    (call,) = message["tool_calls"]
    arguments = call["function"]["arguments"]
    assert "\n" in arguments
    assert set(json.loads(arguments)) == {"city", "days"}
    assert message["content"] == ""
    assert message["reasoning_content"]
    assert "```" not in message["reasoning_content"]


@one_loop
@pytest.mark.parametrize("name", [R1, NAME])
async def test_t5_t8_a_thought_that_both_sides_open_has_no_tag_in_it(
    shared: dict[str, World], name: str
) -> None:
    it = shared[name]
    message = await it.choice("RETHINK THINK 3 SAY: Yes.")
    assert (message["reasoning_content"], message["content"]) == (THOUGHT, "Yes.")


@one_loop
@pytest.mark.parametrize("name", [R1, NAME])
async def test_t6_an_answer_without_a_thought_is_content(
    shared: dict[str, World], name: str
) -> None:
    it = shared[name]
    message = await it.choice("SKIP SAY: Yes.")
    assert (message["reasoning_content"], message["content"]) == ("", "Yes.")
    results: list[Json] = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "weather"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "It rains."},
    ]
    message = await it.choice(messages=results, tools=[WEATHER])
    assert "It rains." in message["content"]
    assert bool(message["reasoning_content"]) is (name == R1)


@one_loop
@pytest.mark.parametrize("name", [R1, NAME])
async def test_t7_control_tokens_that_a_user_types_are_text_to_the_model_and_back(
    tokenizer: Tokenizer, shared: dict[str, World], name: str
) -> None:
    typed = f"</think>{''.join(Mark)}<think>"
    it = shared[name]
    plain = await it.choice("SAY: ab")
    ids = it.author.decoded.prompt_ids
    message = await it.choice(f"SAY: {typed}")
    assert plain["content"] == "ab"
    assert message["content"] == typed, "what the model spells out turns nothing"
    seen = it.author.decoded.prompt_ids
    marks = {0, 1, *range(128_798, 128_815)}
    assert [i for i in seen if i in marks] == [i for i in ids if i in marks]
    assert typed in tokenizer.decode(seen)


@one_loop
async def test_t9_json_is_the_answer_and_not_the_thought(
    tokenizer: Tokenizer, shared: dict[str, World]
) -> None:
    it = shared[NAME]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for answer_format in (
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    ):
        for command in ("", "SKIP "):
            message = await it.choice(f"{command}json: 3", response_format=answer_format)
            assert isinstance(json.loads(message["content"]), dict)
            assert bool(message["reasoning_content"]) is not bool(command)
            submit = it.author.decoded
            assert submit.sampling.grammar is not None
            opened = tokenizer.assemble([Mark.THINK, "\n"])
            assert list(submit.prompt_ids[-2:]) == opened, "0528 would not open it itself"
    await it.choice("json: 3")
    assert it.author.decoded.prompt_ids[-1] == tokenizer.control.assistant


@one_loop
async def test_t9_an_answer_that_is_no_json_is_counted(shared: dict[str, World]) -> None:
    wanted = {"type": "json_object"}
    counter = f'r1_invalid_json_total{{model="{NAME}"}}'
    it = shared[NAME]
    await it.choice("json, please", response_format=wanted)
    await it.choice("RAW: no</think>{")
    assert counter not in await it.metrics()
    for answer in ("{", "", "[" * 1_200 + "]" * 1_200):
        await it.choice(f"json RAW: so</think>{answer}", response_format=wanted)
    assert f"{counter} 3.0" in await it.metrics()


@one_loop
async def test_t10_a_clients_temperature_does_not_make_it_think_for_ever(
    shared: dict[str, World],
) -> None:
    it = shared[NAME]
    await it.choice("Hi", temperature=0, top_p=0.1, presence_penalty=2, frequency_penalty=2)
    sampling = it.author.decoded.sampling
    assert (sampling.temperature, sampling.top_p) == (0.6, 0.95)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.0, 0.0)
    assert (sampling.max_tokens, sampling.thinking_budget) == (32_768, None)
    await it.choice("Hi", reasoning_effort="low")
    assert it.author.decoded.sampling.thinking_budget == 4_096


@one_loop
@pytest.mark.parametrize("stream", [True, False])
async def test_t11_a_stop_string_in_the_thought_stops_nothing(
    tokenizer: Tokenizer, tmp_path: Path, stream: bool
) -> None:
    slow = FakeEngineSpec(step_s=0.002, prefill_s_per_token=0.0)
    async with world(tokenizer, tmp_path, slow) as it:
        question = "RAW: <think>I write ``` here.</think>See ```python and more" + " and more" * 500
        answer = await it.post(question, stop=["```"], stream=stream)
        if stream:
            deltas = [event["choices"][0]["delta"] for event in events(answer)]
            reasoning = "".join(delta.get("reasoning_content") or "" for delta in deltas)
            content = "".join(delta.get("content") or "" for delta in deltas)
            assert list(events(answer))[-1]["choices"][0]["finish_reason"] == "stop"
        else:
            message = answer.json()["choices"][0]["message"]
            reasoning, content = message["reasoning_content"], message["content"]
        assert (reasoning, content) == ("I write ``` here.", "See ")
        await until(lambda: it.rank.engine.load().running == 0)
        assert it.rank.engine.load().steps < 400, "the engine need not write the rest"


@one_loop
async def test_t12_old_reasoning_does_not_reach_the_model(shared: dict[str, World]) -> None:
    before = {"role": "user", "content": "One?"}
    after = {"role": "user", "content": "SAY: Two"}
    long = "far too long " * 500
    it = shared[NAME]
    seen = []
    for answered in (
        {"content": "One."},
        {"content": "One.", "reasoning_content": long},
        {"content": f"<think>\n{long}</think>One."},
        {"content": f"{long}</think>One.", "reasoning_content": long},
    ):
        turns = [before, {"role": "assistant"} | answered, after]
        await it.choice(messages=turns)
        seen.append(tuple(it.author.decoded.prompt_ids))
    assert len(set(seen)) == 1


def silent(answer: httpx.Response, sign: str) -> int:
    """How many signs of life came before the first word."""
    count = 0
    text = answer.text
    while text.startswith(sign):
        text = text.removeprefix(sign)
        count += 1
    return count


@one_loop
@pytest.mark.parametrize(("stream", "sign"), [(True, ": keep-alive\n\n"), (False, "\n")])
async def test_t13_a_client_hears_of_us_while_the_prompt_is_read_and_while_it_is_thought(
    tokenizer: Tokenizer, tmp_path: Path, stream: bool, sign: str
) -> None:
    reading = FakeEngineSpec(step_s=0.0, prefill_s_per_token=0.01)
    async with world(tokenizer, tmp_path / "r", reading, keep_alive_s=0.05) as it:
        answer = await it.post("THINK 1 SAY: a rather long question", stream=stream)
        assert silent(answer, sign) >= 2
    thinking = FakeEngineSpec(step_s=0.005, prefill_s_per_token=0.0)
    async with world(tokenizer, tmp_path / "t", thinking, keep_alive_s=0.05) as it:
        answer = await it.post("THINK 60 SAY: Yes.", stream=stream)
        # A body has nothing to send before its end, however many tokens there are.
        assert silent(answer, sign) == 0 if stream else silent(answer, sign) >= 4
        assert stream or answer.json()["choices"][0]["message"]["content"] == "Yes."
        whole = await it.running.openai.chat.completions.create(
            model="deepseek-reasoner",
            messages=[{"role": "user", "content": "THINK 60 SAY: Yes."}],
            timeout=openai.Timeout(5, read=0.2),  # what a proxy allows between two bytes
        )
        assert whole.choices[0].message.content == "Yes."


@one_loop
@pytest.mark.parametrize("stream", [True, False])
async def test_t14_a_failure_after_the_status_is_a_completion_that_says_so(
    tokenizer: Tokenizer, tmp_path: Path, stream: bool
) -> None:
    dying = FakeEngineSpec(step_s=0.005, prefill_s_per_token=0.0, die_after_tokens=40)
    async with world(tokenizer, tmp_path, dying, keep_alive_s=0.05) as it:
        answer = await it.post("THINK 20 LONG 500", stream=stream)
        assert answer.status_code == 200
        assert '"error"' not in answer.text
        if stream:
            last = list(events(answer))[-1]
            assert answer.text.endswith("data: [DONE]\n\n")
        else:
            last = answer.json()
            assert last["choices"][0]["message"]["reasoning_content"].startswith(THOUGHT)
        assert last["choices"][0]["finish_reason"] == "insufficient_system_resource"
        assert last["usage"]["completion_tokens"] == 40


@one_loop
async def test_t14_a_failure_before_it_has_a_status_of_its_own(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with world(tokenizer, tmp_path, FakeEngineSpec(die_after_tokens=0)) as it:
        answer = await it.post("Hi")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["type"] == "service_unavailable_error"


@one_loop
@pytest.mark.parametrize("name", [R1, NAME, ZERO])
async def test_t15_the_engine_gets_one_begin_of_sentence(
    shared: dict[str, World], name: str
) -> None:
    it = shared[name]
    await it.choice(f"{Mark.BEGIN_OF_SENTENCE}Hi", model=name)
    ids = it.author.decoded.prompt_ids
    assert (ids[0], ids.count(0)) == (0, 1)


@one_loop
@pytest.mark.parametrize("alias", [False, True])
async def test_t17_the_field_is_reasoning_content(
    tokenizer: Tokenizer, tmp_path: Path, alias: bool
) -> None:
    async with world(tokenizer, tmp_path, api=ApiSpec(reasoning_alias=alias)) as it:
        message = (await it.post("THINK 3 SAY: Yes.")).json()["choices"][0]["message"]
        names = ["role", "content", "reasoning_content", "reasoning"]
        assert list(message) == (names if alias else names[:-1])
        assert message["reasoning_content"] == message.get("reasoning", THOUGHT)
        answer = await it.post("THINK 3 SAY: Yes.", stream=True)
        assert ('"reasoning":' in answer.text) is alias
        assert '"reasoning_content":"' in answer.text


@one_loop
async def test_t18_the_official_client_finds_it_though_it_has_no_name_for_it(
    shared: dict[str, World],
) -> None:
    it = shared[NAME]
    whole = await it.running.openai.chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": "THINK 3 SAY: Yes."}]
    )
    message = whole.choices[0].message
    assert message.model_extra == {"reasoning_content": THOUGHT}
    assert message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
    assert await it.running.ask("THINK 3 SAY: Yes.") == (THOUGHT, "Yes.", "stop")
    assert await it.running.ask("THINK 3 SAY: Yes.", extra_body={"tools": None}) == (
        THOUGHT,
        "Yes.",
        "stop",
    )


@one_loop
@pytest.mark.parametrize("name", [R1, NAME])
async def test_t19_null_content_and_null_calls_in_a_history_are_absent(
    shared: dict[str, World], name: str
) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    it = shared[name]
    seen = []
    absent: list[Json] = [{}, {"content": None}, {"content": ""}]
    no_calls: list[Json] = [{}, {"tool_calls": None}, {"tool_calls": []}]
    for nothing, none in product(absent, no_calls):
        turns: list[Json] = [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "tool_calls": [call], **nothing},
            {"role": "tool", "tool_call_id": "a", "content": "It rains."},
            {"role": "assistant", "content": "Yes.", **none},
            {"role": "user", "content": "SAY: Two"},
        ]
        message = await it.choice(messages=turns, tools=None, tool_choice=None, stop=None)
        assert message["content"] == "Two"
        seen.append(tuple(it.author.decoded.prompt_ids))
    assert len(set(seen)) == 1
    refused = await it.post(messages=[{"role": "assistant", "content": None}])
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("Invalid assistant message")


@one_loop
@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions", "/beta/completions"])
async def test_t20_bytes_that_are_no_utf_8_are_refused_in_the_official_shape(
    shared: dict[str, World], path: str
) -> None:
    it = shared[NAME]
    answer = await it.running.http.post(path, content=b'{"model":"\xff"}')
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
    missing = await it.running.http.get(f"{path}/nowhere")
    assert list(missing.json()["error"]) == ["message", "type", "param", "code"]


@one_loop
async def test_t21_tokens_that_the_thought_uses_up_are_said_to_be_and_never_raised(
    shared: dict[str, World],
) -> None:
    name = R1
    it = shared[name]
    message = await it.choice("THINK 100 SAY: Yes.", max_tokens=50)
    assert it.author.decoded.sampling.max_tokens == 50
    assert (message["content"], message["finish"]) == ("", "length")
    usage = message["usage"]
    assert usage["completion_tokens"] == 50
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 50}
    counted = f'r1_empty_answers_total{{model="{name}",reason="length"}} 1.0'
    assert counted in await it.metrics()
    await it.choice("EMPTY THINK 3")
    counted = f'r1_empty_answers_total{{model="{name}",reason="stop"}} 1.0'
    assert counted in await it.metrics()


def events(answer: httpx.Response) -> list[Json]:
    """The chunks of a stream."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
