"""The official Python client: answers, thinking, turns; with and without asyncio."""

import asyncio
from collections.abc import Mapping
from typing import Any

import openai
import pytest
from openai.types.chat import (
    ChatCompletionMessageParam,
)

from tests.conformance.openai_words import (
    BOTH,
    CHAT,
    MIDDLE,
    REASONER,
    Collected,
    Weather,
    asynchronous,
    back,
    begun,
    collect,
    reasoning_tokens,
    thought,
    user,
)

pytestmark = pytest.mark.timeout(60)

# --- answers -----------------------------------------------------------------------------------


def check_thinking(collected: Collected) -> None:
    """What holds for every stream that thinks and then answers."""
    assert collected.order == ["reasoning", "answer"]
    assert "Why is the sky blue?" in collected.reasoning
    assert collected.answer.endswith("I hope it helps you. 😊")
    assert collected.finish == "stop"
    assert len(collected.ids) == 1
    assert collected.usages[:-1] == [None] * (len(collected.usages) - 1)
    usage = collected.usages[-1]
    assert usage is not None
    assert 0 < (reasoning_tokens(usage) or 0) < usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("include_usage", [None, True, False])
def test_a_stream_is_reasoning_then_answer_with_the_usage_on_its_last_chunk(
    client: openai.OpenAI, include_usage: bool | None
) -> None:
    stream = client.chat.completions.create(
        model=REASONER,
        messages=user("Why is the sky blue?"),
        stream=True,
        stream_options=None if include_usage is None else {"include_usage": include_usage},
    )
    check_thinking(collect(stream))


async def test_a_stream_for_asyncio_is_the_same(server: str) -> None:
    collected = Collected()
    async with asynchronous(server) as client:
        stream = await client.chat.completions.create(
            model=REASONER, messages=user("Why is the sky blue?"), stream=True
        )
        async for chunk in stream:
            collected.add(chunk)
    check_thinking(collected)


def test_a_chat_model_streams_no_reasoning_keys(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=CHAT, messages=user("Hello"), stream=True)
    chunks = list(stream)
    assert not any(
        "reasoning_content" in chunk.choices[0].delta.model_fields_set for chunk in chunks
    )
    assert collect(chunks).answer == "Hello! How can I help you today?"
    assert reasoning_tokens(chunks[-1].usage) is None


def test_an_answer_in_one_piece_has_reasoning_beside_the_content(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=REASONER, messages=user("Why is the sky blue?")
    )
    (choice,) = completion.choices
    assert thought(choice.message) is not None
    assert "Why is the sky blue?" in (thought(choice.message) or "")
    assert "Here is my answer" in (choice.message.content or "")
    assert (choice.finish_reason, completion.model) == ("stop", REASONER)
    assert (reasoning_tokens(completion.usage) or 0) > 0


async def test_asyncio_may_ask_many_questions_at_once(server: str) -> None:
    async with asynchronous(server) as client:
        completions = await asyncio.gather(
            *(
                client.chat.completions.create(model=REASONER, messages=user(f"SAY: answer {n}"))
                for n in range(20)
            )
        )
    answers = [completion.choices[0].message.content for completion in completions]
    assert answers == [f"answer {n}" for n in range(20)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_seen_before_is_reported_as_cached(client: openai.OpenAI, stream: bool) -> None:
    messages = user(f"stream={stream}: tell me all about caches. " * 40 + "THINK 5 SAY: yes")
    usages = []
    for _ in range(2):
        if stream:
            chunks = client.chat.completions.create(model=REASONER, messages=messages, stream=True)
            usages.append(collect(chunks).usages[-1])
        else:
            completion = client.chat.completions.create(model=REASONER, messages=messages)
            usages.append(completion.usage)
    hits = []
    for usage in usages:
        assert usage is not None
        assert usage.model_extra is not None
        assert usage.prompt_tokens_details is not None
        hit, miss = (usage.model_extra[f"prompt_cache_{kind}_tokens"] for kind in ("hit", "miss"))
        assert hit + miss == usage.prompt_tokens
        assert hit == usage.prompt_tokens_details.cached_tokens
        hits.append(hit)
    assert hits[0] == 0
    assert hits[1] >= 256
    assert hits[1] % 64 == 0


def test_the_stream_helper_assembles_the_completion(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=REASONER, messages=user("Why is the sky blue?")
    ) as stream:
        kinds = [event.type for event in stream]
        completion = stream.get_final_completion()
    assert kinds[-1] == "content.done"
    assert {"chunk", "content.delta"} <= set(kinds)
    message = completion.choices[0].message
    assert (thought(message) or "").startswith("The user says “Why is the sky blue?”.")
    assert (message.content or "").endswith("I hope it helps you. 😊")
    assert (reasoning_tokens(completion.usage) or 0) > 0


async def test_the_stream_helper_for_asyncio_assembles_tool_calls(server: str) -> None:
    async with (
        asynchronous(server) as client,
        client.chat.completions.stream(
            model=REASONER,
            messages=user("What is the weather in Paris and in London?"),
            tools=[openai.pydantic_function_tool(Weather, name="weather")],
        ) as stream,
    ):
        done = [
            event.parsed_arguments
            async for event in stream
            if event.type == "tool_calls.function.arguments.done"
        ]
        completion = await stream.get_final_completion()
    assert done == [Weather(location="Paris"), Weather(location="London")]
    calls = completion.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == done
    assert [call.id[:8] for call in calls] == ["call_00_", "call_01_"]


def test_the_raw_response_can_be_had(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=REASONER, messages=user("Hello"))
    assert raw.headers["content-type"] == "application/json"
    assert raw.http_response.json()["choices"][0]["message"]["reasoning_content"]
    assert raw.parse().choices[0].message.content == "Hello! How can I help you today?"
    with client.chat.completions.with_streaming_response.create(
        model=REASONER, messages=user("Hello"), stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/beta", "/beta/v1"])
def test_every_base_url_serves_chat_and_models(server: str, path: str) -> None:
    with openai.OpenAI(base_url=server + path, api_key="sk-test", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert {REASONER, CHAT} <= set(names)
        assert client.models.retrieve(REASONER).id == REASONER
        completion = client.chat.completions.create(model=REASONER, messages=user("Hello"))
    assert completion.choices[0].message.content == "Hello! How can I help you today?"


def test_what_deepseek_does_not_know_is_ignored(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=REASONER,
        messages=[{"role": "developer", "content": "Be brief."}, *user("SAY: fine")],
        temperature=0.3,
        top_p=0.5,
        presence_penalty=1,
        seed=7,
        user="somebody",
        store=False,
        metadata={"a": "b"},
        parallel_tool_calls=True,
        service_tier="auto",
        max_completion_tokens=100,
    )
    assert completion.choices[0].message.content == "fine"


def test_an_answer_ends_at_its_bound_and_at_a_stop(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(
        model=REASONER, messages=user("THINK 3 LONG 100"), max_tokens=12
    )
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 12
    stream = client.chat.completions.create(
        model=REASONER, messages=user("three SAY: one two three"), stop=[" three"], stream=True
    )
    collected = collect(stream)
    assert (collected.answer, collected.finish) == ("one two", "stop")


def test_a_chat_model_gives_logprobs(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=CHAT, messages=user("SAY: one two"), logprobs=True, top_logprobs=2
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == "one two"
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


# --- thinking and turns ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "more", "thinks"),
    [
        (CHAT, {"extra_body": {"thinking": {"type": "enabled"}}}, True),
        (REASONER, {"extra_body": {"thinking": {"type": "enabled"}}}, True),
        (REASONER, {"extra_body": {"thinking": {"type": "disabled"}}}, False),
        (REASONER, {"extra_body": {"thinking": None}}, True),
        (REASONER, {"reasoning_effort": "none"}, False),
        (REASONER, {"reasoning_effort": "medium"}, True),
        (REASONER, {"reasoning_effort": "high"}, True),
    ],
)
def test_thinking_is_switched(
    client: openai.OpenAI, model: str, more: Mapping[str, Any], thinks: bool
) -> None:
    completion = client.chat.completions.create(model=model, messages=user("Hello"), **more)
    assert bool(thought(completion.choices[0].message)) is thinks
    assert (reasoning_tokens(completion.usage) is not None) is thinks
    assert completion.choices[0].message.content == "Hello! How can I help you today?"
    assert completion.model == model


def test_reasoning_that_is_sent_back_costs_nothing(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model=REASONER, messages=user("THINK 150 SAY: Rome."))
    message = first.choices[0].message
    followed = user("SAY: It is in Italy.")
    said: ChatCompletionMessageParam = {"role": "assistant", "content": message.content}
    usages = []
    for turn in (said, back(message)):
        second = client.chat.completions.create(
            model=REASONER, messages=[*user("THINK 150 SAY: Rome."), turn, *followed]
        )
        assert second.choices[0].message.content == "It is in Italy."
        assert second.usage is not None
        usages.append(second.usage.prompt_tokens)
    assert usages[0] == usages[1] < 80


@BOTH
def test_a_beginning_is_continued_below_beta(beta: openai.OpenAI, model: str) -> None:
    messages = begun("SAY: Roses are red, violets are blue.", content="Roses are")
    completion = beta.chat.completions.create(model=model, messages=messages)
    assert completion.choices[0].message.content == " red, violets are blue."
    assert not thought(completion.choices[0].message)
    stream = beta.chat.completions.create(model=model, messages=messages, stream=True)
    collected = collect(stream)
    assert (collected.answer, collected.reasoning) == (" red, violets are blue.", "")


def test_a_thought_is_continued_below_beta(beta: openai.OpenAI) -> None:
    messages = begun("THINK 20 SAY: Yes.", reasoning_content=" step by", content=None)
    message = beta.chat.completions.create(model=REASONER, messages=messages).choices[0].message
    assert message.content == "Yes."
    assert (thought(message) or "").startswith(" step we look at the question")


def test_a_beginning_is_refused_elsewhere(client: openai.OpenAI) -> None:
    messages = begun("Write a poem", content="Roses are")
    with pytest.raises(openai.BadRequestError, match="set base_url to end with /beta"):
        client.chat.completions.create(model=REASONER, messages=messages)


def test_a_middle_is_filled_in_below_beta(beta: openai.OpenAI) -> None:
    prompt = "def double(x):\n    result = 2 * x"
    whole = beta.completions.create(model=CHAT, prompt=prompt, suffix="\nprint(double(3))")
    (choice,) = whole.choices
    assert (choice.text, choice.finish_reason) == (MIDDLE, "stop")
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    chunks = list(beta.completions.create(model=CHAT, prompt=prompt, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == MIDDLE
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    echoed = beta.completions.create(model=CHAT, prompt=prompt, echo=True, logprobs=1, max_tokens=2)
    assert echoed.choices[0].text == f"{prompt}\n   "
    assert echoed.choices[0].finish_reason == "length"
    logprobs = echoed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["\n", "   "]


def test_a_reasoner_fills_in_no_middle(beta: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support fill in the middle"):
        beta.completions.create(model=REASONER, prompt="a")
