"""Key sets, their order and what is null, compared with recordings of the official API.

The recordings are in the repository vercel/ai, packages/deepseek/src/chat/__fixtures__: the files
`deepseek-reasoning`, `-text` and `-tool-call`, of `deepseek-reasoner` and `deepseek-chat` in
December 2025 and of their successor in August 2026. Here are their shapes; the texts are ours.
"""

import json
from collections.abc import Iterator

import httpx
import pytest

HEAD = '"id":"x","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"f"'
USAGE = (
    '{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,'
    '"prompt_tokens_details":{"cached_tokens":0},%s'
    '"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":1}'
)
THOUGHT_USAGE = USAGE % '"completion_tokens_details":{"reasoning_tokens":1},'
CHAT_USAGE = USAGE % ""


def chunk(delta: str, reason: str = "null", usage: str = "null") -> str:
    """A recorded event with that delta."""
    return (
        f'{{{HEAD},"choices":[{{"index":0,"delta":{delta},"logprobs":null,'
        f'"finish_reason":{reason}}}],"usage":{usage}}}'
    )


FIRST = chunk('{"role":"assistant","content":null,"reasoning_content":""}')
THOUGHT = chunk('{"content":null,"reasoning_content":"We"}')
ANSWER = chunk('{"content":"The","reasoning_content":null}')
CALL = chunk(
    '{"tool_calls":[{"index":0,"id":"call_00_x","type":"function",'
    '"function":{"name":"weather","arguments":""}}]}'
)
ARGUMENTS = chunk('{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}')
LAST = chunk('{"content":"","reasoning_content":null}', '"stop"', THOUGHT_USAGE)
CHAT = [
    chunk('{"role":"assistant","content":""}'),
    chunk('{"content":"##"}'),
    chunk('{"content":""}', '"stop"', CHAT_USAGE),
]


def body(message: str, usage: str) -> str:
    """A recorded body with that message."""
    return (
        '{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        f'"message":{message},"logprobs":null,"finish_reason":"stop"}}],"usage":{usage},'
        '"system_fingerprint":"f"}'
    )


THOUGHT_BODY = body('{"role":"assistant","content":"T","reasoning_content":"W"}', THOUGHT_USAGE)
CALL_BODY = body(
    '{"role":"assistant","content":"","reasoning_content":"W","tool_calls":[{"index":0,'
    '"id":"call_00_x","type":"function","function":{"name":"weather","arguments":"{}"}}]}',
    THOUGHT_USAGE,
)
CHAT_BODY = body('{"role":"assistant","content":"#"}', CHAT_USAGE)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather in a location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}


def shape(value: object) -> object:
    """Keys in their order, lists by their first item, everything else by its type."""
    match value:
        case dict():
            return [(key, shape(item)) for key, item in value.items()]
        case list():
            return [shape(item) for item in value[:1]]
        case _:
            return type(value).__name__


def recorded(text: str) -> object:
    """The shape of a recording."""
    return shape(json.loads(text))


def ask(server: str, model: str, question: str, **more: object) -> httpx.Response:
    """The raw answer."""
    request = {"model": model, "messages": [{"role": "user", "content": question}]} | more
    answer = httpx.post(f"{server}/chat/completions", json=request, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def events(answer: httpx.Response) -> Iterator[object]:
    """The shapes of a stream's events, a run of equal ones once."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    last = None
    for part in parts:
        assert part.startswith("data: ")
        seen = recorded(part[6:])
        if seen != last:
            yield seen
        last = seen


def test_a_thinking_stream(server: str) -> None:
    answer = ask(server, "deepseek-reasoner", "How many r?", stream=True)
    assert list(events(answer)) == [recorded(e) for e in (FIRST, THOUGHT, ANSWER, LAST)]


def test_a_stream_with_a_tool_call(server: str) -> None:
    question = "What is the weather in San Francisco?"
    answer = ask(server, "deepseek-reasoner", question, stream=True, tools=[WEATHER])
    expected = (FIRST, THOUGHT, CALL, ARGUMENTS, LAST)
    assert list(events(answer)) == [recorded(event) for event in expected]


def test_a_chat_stream(server: str) -> None:
    answer = ask(server, "deepseek-chat", "Invent a holiday", stream=True)
    assert list(events(answer)) == [recorded(event) for event in CHAT]


@pytest.mark.parametrize(
    ("model", "question", "tools", "expected"),
    [
        ("deepseek-reasoner", "How many r?", None, THOUGHT_BODY),
        ("deepseek-reasoner", "What is the weather in Rome?", [WEATHER], CALL_BODY),
        ("deepseek-chat", "Invent a holiday", None, CHAT_BODY),
    ],
)
def test_a_body(server: str, model: str, question: str, tools: object, expected: str) -> None:
    answer = ask(server, model, question, tools=tools)
    assert answer.headers["content-type"] == "application/json"
    assert shape(answer.json()) == recorded(expected)


def test_ids_are_bare_uuids_and_calls_are_numbered(server: str) -> None:
    question = "What is the weather in Paris and in London?"
    completion = ask(server, "deepseek-reasoner", question, tools=[WEATHER]).json()
    assert len(completion["id"]) == 36
    calls = completion["choices"][0]["message"]["tool_calls"]
    assert [(call["index"], call["id"][:8]) for call in calls] == [(0, "call_00_"), (1, "call_01_")]
    assert all(len(call["id"]) == 32 and call["id"][8:].isalnum() for call in calls)
    assert completion["choices"][0]["finish_reason"] == "tool_calls"
