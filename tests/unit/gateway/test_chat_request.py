import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.codec import AssistantMessage, SystemMessage, UserMessage
from orchestrator.gateway.chat_request import (
    ChatLimits,
    ChatRequest,
    check_context,
    parse_chat_request,
)
from orchestrator.gateway.errors import ApiError

MODELS = ("deepseek-reasoner", "DeepSeek-R1")
LIMITS = ChatLimits()
HELLO = {"role": "user", "content": "Hello"}


def parse(**fields: object) -> ChatRequest | ApiError:
    body = {"model": "deepseek-reasoner", "messages": [HELLO]} | fields
    return parse_chat_request(json.dumps(body).encode(), MODELS, LIMITS)


def error(**fields: object) -> ApiError:
    result = parse(**fields)
    assert isinstance(result, ApiError), result
    return result


def request(**fields: object) -> ChatRequest:
    result = parse(**fields)
    assert isinstance(result, ChatRequest), result
    return result


def test_the_least_request_has_the_official_defaults() -> None:
    assert request() == ChatRequest(
        model="deepseek-reasoner",
        messages=(UserMessage("Hello"),),
        max_tokens=32_768,
        temperature=None,
        top_p=None,
        stop=(),
        stream=False,
        seed=None,
    )


def test_null_is_absence_and_unknown_fields_are_ignored() -> None:
    optional = (
        "max_tokens max_completion_tokens temperature top_p presence_penalty frequency_penalty n "
        "seed stop stream stream_options thinking response_format logprobs top_logprobs tools "
        "tool_choice"
    )
    unknown: dict[str, object] = {
        "user": 1,
        "metadata": {"a": [None]},
        "store": False,
        "logit_bias": {"1": 2},
    }
    assert request(**unknown, **dict.fromkeys(optional.split())) == request()


def test_a_clients_kv_reference_never_gets_further_than_the_body() -> None:
    assert request(kv_transfer_params={"do_remote_prefill": True}) == request()


def test_what_means_nothing_new_is_accepted() -> None:
    assert (
        request(
            n=1,
            tools=[],
            tool_choice="auto",
            logprobs=False,
            response_format={"type": "text"},
            thinking={"type": "enabled"},
            presence_penalty=-2,
            stop=[""],
            messages=[{**HELLO, "name": "Ada", "tool_calls": None}],
        )
        == request()
    )


def test_every_field_arrives() -> None:
    given_fields = request(
        model="DeepSeek-R1",
        max_tokens=5,
        temperature=2,
        top_p=0.1,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        seed=7,
    )
    assert given_fields == ChatRequest(
        model="DeepSeek-R1",
        messages=(UserMessage("Hello"),),
        max_tokens=5,
        temperature=2.0,
        top_p=0.1,
        stop=("a", "b"),
        stream=True,
        seed=7,
    )
    assert request(stop="a").stop == ("a",)
    assert request(max_completion_tokens=6).max_tokens == 6
    assert request(max_completion_tokens=6, max_tokens=5).max_tokens == 5


def test_messages_of_all_roles_are_brought_into_one_form() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "D"},
        {"role": "system", "content": parts},
        {"role": "user", "content": parts},
        {"role": "user", "content": []},
        {"role": "assistant", "content": "A", "reasoning_content": "R", "tool_calls": []},
    ]
    assert request(messages=messages).messages == (
        SystemMessage("D"),
        SystemMessage("one\ntwo"),
        UserMessage("one\ntwo"),
        UserMessage(""),
        AssistantMessage("A"),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "deepseek-chat"}, "Model Not Exist"),
        ({"messages": []}, "Invalid messages value, there must be at least one message"),
        (
            {"max_tokens": 0},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 65536]",
        ),
        (
            {"max_completion_tokens": 65_537},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 65536]",
        ),
        ({"top_p": 0}, "Invalid top_p value, the valid range of top_p is (0, 1.0]"),
        ({"n": 2}, "Invalid n value (currently only n = 1 is supported)"),
        (
            {"messages": [{"role": "assistant", "content": None}]},
            "Invalid assistant message: content or tool_calls must be set",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_in_the_official_words(
    fields: dict[str, object], message: str
) -> None:
    assert error(**fields) == ApiError(400, message)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"thinking": {"type": "disabled"}}, "`thinking` of type 'disabled'"),
        ({"response_format": {"type": "json_object"}}, "`response_format`"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "`response_format`"),
        ({"logprobs": True}, "`logprobs`"),
        ({"top_logprobs": 0}, "`top_logprobs`"),
        ({"tools": [{"type": "function"}]}, "`tools`"),
        ({"tool_choice": "required"}, "`tool_choice`"),
        ({"tool_choice": {"type": "function"}}, "`tool_choice`"),
        ({"messages": [{"role": "assistant", "content": "A", "prefix": True}]}, "`prefix`"),
        ({"messages": [{"role": "tool", "content": "A"}]}, "tool calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tool calls"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields: dict[str, object], name: str) -> None:
    assert error(**fields).status == 400
    assert name in error(**fields).message


FORM = "Failed to deserialize the JSON body into the target type: "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[]", "Expected `object`, got `array`"),
        ('{"messages": []}', "missing field `model`"),
        ('{"model": "m", "messages": {}}', "messages: Expected `array`, got `object`"),
        ('{"model": "m", "messages": [3]}', "messages[0]: Expected `object`, got `int`"),
        ('{"model": "m", "messages": [{}]}', "messages[0]: missing field `role`"),
        (
            '{"model": "m", "messages": [{"role": "user"}]}',
            "messages[0]: missing field `content`",
        ),
        (
            '{"model": "m", "messages": [{"role": "boss", "content": ""}]}',
            "messages[0].role: unknown variant `boss`, expected one of `system`, `user`, "
            "`assistant`, `tool`",
        ),
        (
            '{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "messages[0].content[0].type: unknown variant `image_url`, expected `text`",
        ),
        (
            '{"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}',
            "messages[0].content[0]: missing field `text`",
        ),
        (
            '{"model": "m", "messages": [], "max_tokens": 1.5}',
            "max_tokens: Expected `int | null`, got `float`",
        ),
        (
            '{"model": "m", "messages": [], "stream": "yes"}',
            "stream: Expected `bool | null`, got `str`",
        ),
    ],
)
def test_json_that_is_no_request_is_unprocessable_and_says_where(body: str, message: str) -> None:
    assert parse_chat_request(body.encode(), MODELS, LIMITS) == ApiError(422, FORM + message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b'{"x":' + b"[" * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    result = parse_chat_request(body, MODELS, LIMITS)
    assert isinstance(result, ApiError)
    assert result.status == 400


def test_the_form_is_checked_before_the_model_and_the_model_before_ranges() -> None:
    assert error(model="gpt", max_tokens=0, stream="yes").status == 422
    assert error(model="gpt", max_tokens=0, tools=[1]).message == "Model Not Exist"
    assert "max_tokens" in error(max_tokens=0, tools=[1]).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
names = st.sampled_from([*sorted(ChatRequest.__slots__), "n", "top_p", "tools", "thinking"])
message = st.dictionaries(st.sampled_from(["role", "content", "prefix", "tool_calls"]), json_values)


@settings(deadline=None)  # cores are shared
@given(
    body=st.binary()
    | st.builds(json.dumps, json_values).map(str.encode)
    | st.dictionaries(names, json_values | st.lists(message)).map(lambda d: json.dumps(d).encode())
)
def test_any_body_is_a_request_or_an_error(body: bytes) -> None:
    result = parse_chat_request(body, MODELS, LIMITS)
    assert isinstance(result, ChatRequest) or result.status in (400, 422)


def test_prompt_and_output_must_fit_the_context_to_the_token() -> None:
    limits = ChatLimits(context_tokens=65_536)
    assert check_context(61_440, 4_096, limits) is None
    assert check_context(62_247, 4_096, limits) == ApiError(
        400,
        "This model's maximum context length is 65536 tokens. However, you requested 66343 tokens "
        "(62247 in the messages, 4096 in the completion). Please reduce the length of the messages "
        "or completion.",
    )
