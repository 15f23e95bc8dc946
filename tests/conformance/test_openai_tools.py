"""The official Python client: tools and JSON."""

import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest
from openai.types.chat import (
    ChatCompletionMessageParam,
)

from tests.conformance.openai_words import (
    BOTH,
    CHAT,
    CLOCK,
    REASONER,
    WEATHER,
    Person,
    Weather,
    back,
    calls_of,
    collect,
    thought,
    user,
)

pytestmark = pytest.mark.timeout(60)

# --- tools -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("question", "places"),
    [
        ("What is the weather in Rome?", ["Rome"]),
        ("What is the weather in Paris and in London?", ["Paris", "London"]),
    ],
)
def test_tools_are_called_also_in_parallel(
    client: openai.OpenAI, model: str, question: str, places: Sequence[str]
) -> None:
    messages, tools = user(question), [CLOCK, WEATHER]
    whole = client.chat.completions.create(model=model, messages=messages, tools=tools)
    assert whole.choices[0].finish_reason == "tool_calls"
    calls = calls_of(whole.choices[0].message)
    expected = [("weather", {"location": place}) for place in places]
    assert [(name, json.loads(said)) for name, said in calls] == expected
    stream = client.chat.completions.create(
        model=model, messages=messages, tools=tools, stream=True
    )
    collected = collect(stream)
    assert [(name, json.loads(said)) for name, said in collected.calls.values()] == expected
    assert collected.call_chunks > 3 * len(places)  # the arguments come in pieces
    assert collected.finish == "tool_calls"
    assert [part for part in collected.order if part != "reasoning"] == [
        f"call {index}" for index in range(len(places))
    ]


@BOTH
@pytest.mark.parametrize("reverse", [False, True])
def test_results_are_understood_in_either_order(
    client: openai.OpenAI, model: str, reverse: bool
) -> None:
    messages = user("What is the weather in Paris and in London?")
    asked = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    message = asked.choices[0].message
    results: list[ChatCompletionMessageParam] = [
        {"role": "tool", "tool_call_id": call.id, "content": text}
        for call, text in zip(message.tool_calls or (), ("sun", "rain"), strict=True)
    ]
    messages += [back(message), *(results[::-1] if reverse else results)]
    told = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    assert told.choices[0].finish_reason == "stop"
    assert told.choices[0].message.content == "The tools say: sun; rain. I hope that helps you."
    messages += [back(told.choices[0].message), *user("What is the weather in Rome?")]
    again = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER])
    ((_, arguments),) = calls_of(again.choices[0].message)
    assert json.loads(arguments) == {"location": "Rome"}


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "question", "called"),
    [
        ("auto", "Hello", []),
        ("none", "What is the weather in Rome?", []),
        ("required", "Hello", ["clock"]),
        ({"type": "function", "function": {"name": "weather"}}, "Hello", ["weather"]),
    ],
)
def test_the_choice_among_tools_is_kept(
    client: openai.OpenAI,
    model: str,
    stream: bool,
    choice: object,
    question: str,
    called: list[str],
) -> None:
    arguments: Any = {
        "model": model,
        "messages": user(question),
        "tools": [CLOCK, WEATHER],
        "tool_choice": choice,
    }
    if stream:
        collected = collect(client.chat.completions.create(**arguments, stream=True))
        names, finish = [name for name, _ in collected.calls.values()], collected.finish
    else:
        (chosen,) = client.chat.completions.create(**arguments).choices
        names = [name for name, _ in calls_of(chosen.message)]
        finish = chosen.finish_reason
    assert names == called
    assert finish == ("tool_calls" if called else "stop")


def test_arguments_that_are_no_json_reach_the_client_as_they_are(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=REASONER, messages=user("BAD-JSON"), tools=[WEATHER]
    )
    assert calls_of(completion.choices[0].message) == [("weather", '{"input": 3, "unfinished')]


@BOTH
@pytest.mark.parametrize("path", ["/v1", "/beta"])
def test_strict_tools_are_parsed(server: str, client: openai.OpenAI, model: str, path: str) -> None:
    completion = client.with_options(base_url=server + path).chat.completions.parse(
        model=model,
        messages=user("What is the weather in Rome?"),
        tools=[openai.pydantic_function_tool(Weather, name="weather")],
    )
    calls = completion.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [Weather(location="Rome")]


# --- JSON --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_json_mode_gives_json(client: openai.OpenAI, model: str, stream: bool) -> None:
    arguments: Any = {
        "model": model,
        "messages": user("Who is it? Give me json with the keys 'name' and 'age'."),
        "response_format": {"type": "json_object"},
    }
    if stream:
        answer = collect(client.chat.completions.create(**arguments, stream=True)).answer
    else:
        answer = client.chat.completions.create(**arguments).choices[0].message.content or ""
    assert set(json.loads(answer)) == {"name", "age"}


@BOTH
def test_structured_output_is_parsed(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.parse(
        model=model, messages=user("Who is 'Ada', aged 36?"), response_format=Person
    )
    message = completion.choices[0].message
    assert message.parsed == Person(name="Ada", age=36)
    assert bool(thought(message)) is (model == REASONER)


@BOTH
def test_structured_output_is_parsed_from_a_stream(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(
        model=model, messages=user("Who is 'Ada', aged 36?"), response_format=Person
    ) as stream:
        deltas = [event for event in stream if event.type == "content.delta"]
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed == Person(name="Ada", age=36)
    assert len(deltas) > 3


def test_structured_output_that_was_cut_off_is_an_error_of_its_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=CHAT, messages=user("Who is 'Ada'?"), response_format=Person, max_tokens=3
        )
