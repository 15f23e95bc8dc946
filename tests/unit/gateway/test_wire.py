import json
import re
from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.codec import (
    AnswerText,
    Piece,
    ReasoningText,
    ToolCallArguments,
    ToolCallStart,
)
from orchestrator.core import Finish
from orchestrator.gateway.errors import bad_request, error_body
from orchestrator.gateway.wire import (
    BodyReply,
    FinishReason,
    Reply,
    ReplyHead,
    ReplyShape,
    ScoredToken,
    StreamReply,
    Usage,
    finish_reason,
)

HEAD = ReplyHead(
    id="96ab47fa-9056-448e-8293-24546c4b4c2a",
    created=1786782774,
    model="deepseek-reasoner",
    system_fingerprint="fp_eaab8d114b",
)
USAGE = Usage(prompt_tokens=97, cached_tokens=70, completion_tokens=131, reasoning_tokens=113)
USAGE_JSON = (
    b'{"prompt_tokens":97,"completion_tokens":131,"total_tokens":228,'
    b'"prompt_tokens_details":{"cached_tokens":64},'
    b'"completion_tokens_details":{"reasoning_tokens":113},'
    b'"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":33}'
)
PIECES = (
    ReasoningText("We \u2028 so"),
    AnswerText('The "3"\n'),
    AnswerText("你好"),
)
CALL = (
    ToolCallStart(0, "weather"),
    ToolCallArguments(0, '{"city"'),
    ToolCallArguments(0, ':"Bonn"}'),
)


def sent(reply: Reply, pieces: Sequence[Piece], reason: FinishReason) -> bytes:
    """Everything that a reply sends for `pieces`, each of which comes by itself."""
    return b"".join([*(reply.push([piece]) for piece in pieces), reply.end(reason, USAGE)])


def chunk(delta: bytes, reason: bytes = b"null", usage: bytes = b"null") -> bytes:
    return b"".join(
        (
            b'data: {"id":"96ab47fa-9056-448e-8293-24546c4b4c2a","object":"chat.completion.chunk",',
            b'"created":1786782774,"model":"deepseek-reasoner","system_fingerprint":"fp_eaab8d114b",',
            b'"choices":[{"index":0,"delta":',
            delta,
            b',"logprobs":null,"finish_reason":',
            reason,
            b'}],"usage":',
            usage,
            b"}\n\n",
        )
    )


FIRST = chunk(b'{"role":"assistant","content":null,"reasoning_content":""}')
LAST = b'{"content":"","reasoning_content":null}'


def client(body: bytes, content_type: str) -> openai.OpenAI:
    """The official client, behind which every request is answered with `body`."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=body)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="sk-test", base_url="http://gateway.test", http_client=http)


def test_a_stream_has_the_recorded_shape() -> None:
    assert sent(StreamReply(HEAD), PIECES, FinishReason.STOP) == b"".join(
        (
            FIRST,
            chunk(rb'{"content":null,"reasoning_content":"We \u2028 so"}'),
            chunk(rb'{"content":"The \"3\"\n","reasoning_content":null}'),
            chunk('{"content":"你好","reasoning_content":null}'.encode()),
            chunk(LAST, b'"stop"', USAGE_JSON),
            b"data: [DONE]\n\n",
        )
    )


def test_a_streamed_tool_call_has_the_recorded_shape() -> None:
    data = sent(StreamReply(HEAD), CALL, FinishReason.TOOL_CALLS)
    call_id = re.search(rb"call_00_[0-9a-z]{24}", data)
    assert call_id
    assert data == b"".join(
        (
            FIRST,
            chunk(
                b'{"tool_calls":[{"index":0,"id":"%b","type":"function",'
                b'"function":{"name":"weather","arguments":""}}]}' % call_id[0]
            ),
            chunk(rb'{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\""}}]}'),
            chunk(rb'{"tool_calls":[{"index":0,"function":{"arguments":":\"Bonn\"}"}}]}'),
            chunk(LAST, b'"tool_calls"', USAGE_JSON),
            b"data: [DONE]\n\n",
        )
    )


def test_a_body_has_the_recorded_shape() -> None:
    assert sent(BodyReply(HEAD), PIECES, FinishReason.LENGTH) == b"".join(
        (
            b'{"id":"96ab47fa-9056-448e-8293-24546c4b4c2a","object":"chat.completion",',
            b'"created":1786782774,"model":"deepseek-reasoner","choices":[{"index":0,"message":',
            '{"role":"assistant","content":"The \\"3\\"\\n你好",'.encode(),
            rb'"reasoning_content":"We \u2028 so"},"logprobs":null,"finish_reason":"length"}],',
            b'"usage":',
            USAGE_JSON,
            b',"system_fingerprint":"fp_eaab8d114b"}',
        )
    )


def test_tool_calls_stand_last_in_the_message_of_a_body() -> None:
    body = json.loads(sent(BodyReply(HEAD), CALL, FinishReason.TOOL_CALLS))
    message = body["choices"][0]["message"]
    assert list(message) == ["role", "content", "reasoning_content", "tool_calls"]
    assert (message["content"], message["reasoning_content"]) == ("", "")
    (call,) = message["tool_calls"]
    assert list(call) == ["index", "id", "type", "function"]
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Bonn"}'}


def test_a_failure_before_the_first_token_is_a_well_formed_stream() -> None:
    reason = finish_reason(Finish.LOST, stopped=False, tool_calls=0)
    assert sent(StreamReply(HEAD), [], reason) == b"".join(
        (FIRST, chunk(LAST, b'"insufficient_system_resource"', USAGE_JSON), b"data: [DONE]\n\n")
    )


def test_the_stream_opens_with_the_first_push_and_only_then() -> None:
    reply = StreamReply(HEAD)
    assert reply.push([]) == FIRST
    assert reply.push([]) == b""


@pytest.mark.parametrize(
    ("finish", "stopped", "tool_calls", "reason"),
    [
        (Finish.STOP, False, 0, "stop"),
        (Finish.STOP, False, 1, "tool_calls"),
        (Finish.LENGTH, False, 1, "length"),
        (Finish.ABORTED, True, 0, "stop"),
        (Finish.LENGTH, True, 0, "stop"),
        (Finish.ABORTED, False, 0, "insufficient_system_resource"),
        (Finish.FAILED, False, 0, "insufficient_system_resource"),
        (Finish.LOST, False, 1, "insufficient_system_resource"),
    ],
)
def test_tells_the_client_why_a_completion_ended(
    finish: Finish, stopped: bool, tool_calls: int, reason: str
) -> None:
    assert finish_reason(finish, stopped=stopped, tool_calls=tool_calls) == reason


@settings(deadline=None)  # cores are shared
@given(text=st.text(min_size=1))
def test_any_text_survives_the_official_client(text: str) -> None:
    reply = StreamReply(HEAD)
    data = sent(reply, [ReasoningText(text), AnswerText(text)], FinishReason.STOP)
    assert len(data.decode().splitlines()) == 10  # 4 chunks and the end, a blank line after each
    stream = client(data, reply.content_type).chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": "?"}], stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == text
    assert "".join(delta.content or "" for delta in deltas) == text


def test_the_official_client_reads_a_stream_with_keep_alives() -> None:
    reply = StreamReply(HEAD)
    data = reply.keep_alive.join(
        [b"", reply.push([]), reply.push(PIECES), reply.end(FinishReason.STOP, USAGE)]
    )
    stream = client(data, reply.content_type).chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": "?"}], stream=True
    )
    chunks = list(stream)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert [chunk.usage is None for chunk in chunks] == [True] * 4 + [False]
    check_usage(chunks[-1].usage)


def test_the_official_client_reads_a_body_after_keep_alives() -> None:
    reply = BodyReply(HEAD)
    data = reply.keep_alive * 3 + sent(reply, [*PIECES, *CALL], FinishReason.STOP)
    completion = client(data, reply.content_type).chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": "?"}]
    )
    message = completion.choices[0].message
    assert message.content == 'The "3"\n你好'
    assert (message.model_extra or {})["reasoning_content"] == "We \u2028 so"
    assert message.tool_calls
    assert message.tool_calls[0].type == "function"
    assert message.tool_calls[0].function.arguments == '{"city":"Bonn"}'
    check_usage(completion.usage)


def check_usage(usage: openai.types.CompletionUsage | None) -> None:
    assert usage
    assert usage.prompt_tokens_details
    assert usage.completion_tokens_details
    assert usage.prompt_tokens_details.cached_tokens == 64
    assert usage.completion_tokens_details.reasoning_tokens == 113
    assert (usage.model_extra or {})["prompt_cache_miss_tokens"] == 33


CHAT = ReplyShape(thinks=False)
CHAT_USAGE = Usage(prompt_tokens=97, cached_tokens=0, completion_tokens=7, reasoning_tokens=None)


def test_a_stream_without_reasoning_never_speaks_of_it() -> None:
    reply = StreamReply(HEAD, CHAT)
    data = reply.push([AnswerText("Hi")]) + reply.end(FinishReason.STOP, CHAT_USAGE)
    usage = (
        b'{"prompt_tokens":97,"completion_tokens":7,"total_tokens":104,'
        b'"prompt_tokens_details":{"cached_tokens":0},"prompt_cache_hit_tokens":0,'
        b'"prompt_cache_miss_tokens":97}'
    )
    assert data == b"".join(
        (
            chunk(b'{"role":"assistant","content":""}'),
            chunk(b'{"content":"Hi"}'),
            chunk(b'{"content":""}', b'"stop"', usage),
            b"data: [DONE]\n\n",
        )
    )
    body = BodyReply(HEAD, CHAT)
    body.push([AnswerText("Hi")])
    whole = json.loads(body.end(FinishReason.STOP, CHAT_USAGE))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}


def test_the_operator_can_have_an_alias_an_empty_first_content_and_a_usage_chunk() -> None:
    shape = ReplyShape(first_content="", reasoning_alias=True, usage_chunk=True)
    data = sent(StreamReply(HEAD, shape), PIECES[:2], FinishReason.STOP)
    *events, done, _ = data.split(b"\n\n")
    assert done == b"data: [DONE]"
    deltas = [json.loads(event[6:]) for event in events]
    first, reasoning, answer, last = (d["choices"][0]["delta"] for d in deltas[:4])
    assert first == {"role": "assistant", "content": "", "reasoning_content": "", "reasoning": ""}
    assert reasoning["reasoning"] == reasoning["reasoning_content"] == "We \u2028 so"
    assert answer["reasoning"] is None
    assert last == {"content": "", "reasoning_content": None, "reasoning": None}
    assert [d["usage"] for d in deltas[:4]] == [None] * 4
    assert deltas[4]["choices"] == []
    assert deltas[4]["usage"] == json.loads(USAGE_JSON)
    quiet = ReplyShape(usage_chunk=False)
    assert b"prompt_tokens" not in sent(StreamReply(HEAD, quiet), PIECES, FinishReason.STOP)
    whole = json.loads(sent(BodyReply(HEAD, shape), PIECES, FinishReason.STOP))
    assert whole["choices"][0]["message"]["reasoning"] == "We \u2028 so"


def test_logprobs_go_with_the_text_of_their_tokens() -> None:
    scored = [
        ScoredToken(b"Hi", -0.5, ((b"Hi", -0.5), (b"\xe4", float("-inf")))),
        ScoredToken("é".encode(), -1.0),
    ]
    expected = [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [
                {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]},
                {"token": "\ufffd", "logprob": -9999.0, "bytes": [228]},
            ],
        },
        {"token": "é", "logprob": -1.0, "bytes": [195, 169], "top_logprobs": []},
    ]
    stream = StreamReply(HEAD, CHAT)
    stream.push([])
    event = json.loads(stream.push([AnswerText("Hié")], scored)[6:])
    assert event["choices"][0]["logprobs"] == {"content": expected}
    body = BodyReply(HEAD, CHAT)
    body.push([AnswerText("Hié")], scored)
    data = body.end(FinishReason.STOP, CHAT_USAGE)
    assert json.loads(data)["choices"][0]["logprobs"] == {"content": expected}
    completion = client(data, "application/json").chat.completions.create(
        model="deepseek-chat", messages=[{"role": "user", "content": "?"}]
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].top_logprobs[0].token == "Hi"


def test_an_error_has_the_official_body() -> None:
    assert error_body(bad_request("Model Not Exist")) == (
        b'{"error":{"message":"Model Not Exist","type":"invalid_request_error","param":null,'
        b'"code":"invalid_request_error"}}'
    )


def test_the_cache_hit_is_counted_in_whole_units() -> None:
    usage: dict[str, Any] = json.loads(Usage(127, 127, 1, 0).to_json())
    assert (usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]) == (64, 63)
    assert usage["total_tokens"] == 128
