import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Conversation,
    NamedTool,
    Prefix,
    SystemMessage,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolMode,
    UserMessage,
)
from orchestrator.core import Role
from orchestrator.gateway.answer_format import AnswerFormat
from orchestrator.gateway.chat_request import ChatRequest, check_context, parse_chat_request
from orchestrator.gateway.drawing import Drawing
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.rules import Limits, rules_of
from orchestrator.gateway.tools import NO_TOOLS
from orchestrator.spec import ApiProfile, ApiSpec, ModelSpec, PoolSpec, public_names

R1 = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), "DeepSeek-R1-0528")
V3 = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), "DeepSeek-V3-0324")
BOTH = public_names((R1, V3))
LENIENT = ApiSpec()
STRICT = ApiSpec(strict=True)
HELLO = {"role": "user", "content": "Hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"n": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "weather", "arguments": '{"n": 2}'}},
    ],
}


def parse(
    api: ApiSpec = LENIENT,
    names: Mapping[str, ModelSpec] = BOTH,
    *,
    beta: bool = False,
    **fields: object,
) -> ChatRequest | ApiError:
    body = {"model": "deepseek-reasoner", "messages": [HELLO]} | fields
    return parse_chat_request(json.dumps(body).encode(), names, rules_of(api), beta=beta)


def error(api: ApiSpec = LENIENT, *, beta: bool = False, **fields: object) -> ApiError:
    result = parse(api, BOTH, beta=beta, **fields)
    assert isinstance(result, ApiError), result
    return result


def request(api: ApiSpec = LENIENT, *, beta: bool = False, **fields: object) -> ChatRequest:
    result = parse(api, BOTH, beta=beta, **fields)
    assert isinstance(result, ChatRequest), result
    return result


DRAWING = Drawing(
    max_tokens=32_768,
    temperature=None,
    top_p=None,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    seed=None,
    stop=(),
    logprobs=None,
)


def test_the_least_request_has_the_official_defaults() -> None:
    assert request() == ChatRequest(
        name="deepseek-reasoner",
        model=R1,
        conversation=Conversation((UserMessage("Hello"),)),
        limits=Limits(131_072, 32_768, 65_536),
        drawing=DRAWING,
        tools=NO_TOOLS,
        answer_format=AnswerFormat(),
        thinks=True,
        thinking_budget=None,
        stream=False,
        include_usage=False,
        user_id="",
    )
    chat = request(model="deepseek-chat")
    assert (chat.model, chat.thinks, chat.drawing.max_tokens) == (V3, False, 4_096)


def test_null_is_absence_and_unknown_fields_are_ignored() -> None:
    optional = (
        "max_tokens max_completion_tokens temperature top_p presence_penalty frequency_penalty n "
        "seed stop stream stream_options thinking reasoning_effort response_format logprobs "
        "top_logprobs tools tool_choice user_id"
    )
    unknown: dict[str, Any] = {
        "user": 1,
        "metadata": {"a": [None]},
        "store": False,
        "logit_bias": {"1": 2},
        "parallel_tool_calls": True,
    }
    unknown |= dict.fromkeys(optional.split())
    assert request(**unknown) == request()


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
            reasoning_effort="high",
            stop=[""],
            messages=[{**HELLO, "name": "Ada", "tool_calls": None}],
        )
        == request()
    )


def test_every_field_arrives() -> None:
    given_fields = request(
        max_tokens=5,
        temperature=2,
        top_p=0.1,
        presence_penalty=-2,
        frequency_penalty=1,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        seed=7,
        user_id="ada_1",
        reasoning_effort="low",
    )
    assert given_fields.drawing == Drawing(5, 2.0, 0.1, -2.0, 1.0, 7, ("a", "b"), None)
    assert (given_fields.stream, given_fields.include_usage) == (True, True)
    assert (given_fields.user_id, given_fields.thinking_budget) == ("ada_1", 4_096)
    assert request(stop="a").drawing.stop == ("a",)
    assert request(max_completion_tokens=6).drawing.max_tokens == 6
    assert request(max_completion_tokens=6, max_tokens=5).drawing.max_tokens == 5
    chat = request(model="deepseek-chat", logprobs=True, top_logprobs=3)
    assert chat.drawing.logprobs == 3
    assert request(model="deepseek-chat", logprobs=True).drawing.logprobs == 0


def test_messages_of_all_roles_are_brought_into_one_form() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "D"},
        {"role": "system", "content": parts},
        {"role": "user", "content": parts},
        {"role": "user", "content": []},
        {"role": "assistant", "content": "A", "reasoning_content": "R", "tool_calls": []},
        {"role": "tool", "content": parts, "tool_call_id": "unasked"},
    ]
    assert request(messages=messages).conversation.messages == (
        SystemMessage("D"),
        SystemMessage("one\ntwo"),
        UserMessage("one\ntwo"),
        UserMessage(""),
        AssistantMessage("A"),
        ToolMessage("one\ntwo"),
    )


def test_tool_results_stand_in_the_order_of_their_calls() -> None:
    messages = [
        HELLO,
        CALLED,
        {"role": "tool", "content": "second", "tool_call_id": "b"},
        {"role": "tool", "content": "first", "tool_call_id": "a"},
    ]
    assert request(messages=messages, tools=[WEATHER]).conversation == Conversation(
        (
            UserMessage("Hello"),
            AssistantMessage(
                "", (ToolCall("weather", '{"n": 1}'), ToolCall("weather", '{"n": 2}'))
            ),
            ToolMessage("first"),
            ToolMessage("second"),
        ),
        (_weather(),),
    )


def _weather() -> ToolDefinition:
    [definition] = request(tools=[WEATHER]).conversation.tools
    assert (definition.name, definition.description) == ("weather", "How it is")
    assert json.loads(definition.parameters) == WEATHER["function"]["parameters"]  # type: ignore[index]
    return definition


def test_parsed_arguments_are_written_again() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": [1]}}}
    asked = request(messages=[HELLO, {"role": "assistant", "tool_calls": [call]}])
    assert asked.conversation.messages[1] == AssistantMessage("", (ToolCall("f", '{"x":[1]}'),))


@pytest.mark.parametrize(
    ("choice", "held", "told"),
    [
        (None, None, 1),
        ("auto", None, 1),
        ("none", None, 0),
        ("required", ToolMode.REQUIRED, 1),
        ({"type": "function", "function": {"name": "weather"}}, NamedTool("weather"), 1),
    ],
)
def test_the_choice_says_what_the_model_hears_and_what_holds_it(
    choice: object, held: object, told: int
) -> None:
    asked = request(tools=[WEATHER], tool_choice=choice)
    assert (asked.tools.held, len(asked.conversation.tools)) == (held, told)


def test_strict_tools_are_held_to_their_schema_below_beta_only() -> None:
    strict = json.loads(json.dumps(WEATHER))
    strict["function"]["strict"] = True
    assert request(tools=[strict]).tools.held is None
    assert "beta" in error(STRICT, tools=[strict]).message
    fault = error(beta=True, tools=[strict]).message
    assert fault.startswith("Invalid schema for function 'weather': ")
    strict["function"]["parameters"] |= {"required": ["city"], "additionalProperties": False}
    assert request(beta=True, tools=[strict]).tools.held is ToolMode.AUTO
    other = {"type": "function", "function": {"name": "other"}}
    assert "all functions" in error(beta=True, tools=[strict, other]).message


@pytest.mark.parametrize(
    ("last", "prefix"),
    [
        ({"content": "Once"}, Prefix(None, "Once")),
        ({"content": "Once", "reasoning_content": "Hm"}, Prefix("Hm", "Once")),
        ({"content": "", "reasoning_content": "Hm"}, Prefix("Hm", None)),
        ({"reasoning_content": "Hm"}, Prefix("Hm", None)),
    ],
)
def test_a_prefix_is_what_the_answer_begins_with(last: dict[str, object], prefix: Prefix) -> None:
    messages = [HELLO, {"role": "assistant", "prefix": True} | last]
    assert request(beta=True, messages=messages).conversation == Conversation(
        (UserMessage("Hello"),), prefix=prefix
    )
    assert "beta" in error(messages=messages).message
    for wrong in ([*messages, HELLO], [{**HELLO, "prefix": True}]):
        assert "last message" in error(beta=True, messages=wrong).message


def test_thinking_moves_an_alias_between_the_chat_model_and_the_reasoner() -> None:
    enabled, disabled = {"type": "enabled"}, {"type": "disabled"}
    quick = request(thinking=disabled)
    assert (quick.model, quick.thinks, quick.name) == (V3, False, "deepseek-reasoner")
    slow = request(model="deepseek-chat", thinking=enabled)
    assert (slow.model, slow.thinks, slow.name) == (R1, True, "deepseek-chat")
    assert request(reasoning_effort="none").model == V3


def test_a_model_asked_by_its_own_name_has_its_thought_closed_instead() -> None:
    for name, names in (("DeepSeek-R1-0528", BOTH), ("deepseek-reasoner", public_names((R1,)))):
        asked = parse(names=names, model=name, thinking={"type": "disabled"})
        assert isinstance(asked, ChatRequest)
        assert (asked.model, asked.thinks) == (R1, False)
        assert asked.conversation.suppress_thinking
    refused = parse(model="DeepSeek-V3-0324", thinking={"type": "enabled"})
    assert isinstance(refused, ApiError)
    assert "does not support the parameter `thinking`" in refused.message


def test_profiles_before_it_do_not_know_thinking() -> None:
    old = replace(LENIENT, profile=ApiProfile.DEEPSEEK_2505)
    assert request(old, thinking={"type": "disabled"}, reasoning_effort="low").thinks
    assert request(old, reasoning_effort="low").thinking_budget is None


def test_the_launch_profile_counts_the_answer_only_and_has_no_tools() -> None:
    launch = replace(LENIENT, profile=ApiProfile.DEEPSEEK_2501)
    asked = request(launch)
    assert (asked.drawing.max_tokens, asked.limits.thought_tokens) == (4_096, 32_768)
    assert asked.thinking_budget == 32_768
    assert "[1, 8192]" in error(launch, max_tokens=8_193).message
    message = "deepseek-reasoner does not support Function Calling"
    assert error(launch, tools=[WEATHER]) == ApiError(400, message)
    message = "deepseek-reasoner does not support Json Output"
    json_object = {"type": "json_object"}
    said = [{"role": "user", "content": "json"}]
    assert error(launch, messages=said, response_format=json_object) == ApiError(400, message)
    assert request(launch, model="deepseek-chat", tools=[WEATHER]).conversation.tools


def test_what_the_profile_refuses_is_refused_in_its_words_if_strict() -> None:
    launch = replace(STRICT, profile=ApiProfile.DEEPSEEK_2501)
    assert error(launch, messages=[HELLO, HELLO]).message == (
        "deepseek-reasoner does not support successive user or assistant messages (messages[0] and "
        "messages[1] in your input). You should interleave the user/assistant messages in the "
        "message sequence."
    )
    answered = [HELLO, {"role": "assistant", "content": "A"}]
    assert error(STRICT, messages=answered).message == (
        "The last message of deepseek-reasoner must be a user message, or an assistant message "
        "with prefix mode on (refer to "
        "https://api-docs.deepseek.com/guides/chat_prefix_completion)."
    )
    thought = [HELLO, {"role": "assistant", "content": "A", "reasoning_content": "R"}, HELLO]
    assert "reasoning_content" in error(launch, messages=thought).message
    request(STRICT, messages=thought)
    looped = [
        HELLO,
        CALLED,
        {"role": "tool", "content": "1", "tool_call_id": "a"},
        {"role": "tool", "content": "2", "tool_call_id": "b"},
    ]
    assert error(STRICT, messages=looped).message == (
        "Missing `reasoning_content` field in the assistant message at message index 1. For more "
        "information, please refer to "
        "https://api-docs.deepseek.com/guides/thinking_mode#tool-calls"
    )
    assert "insufficient tool messages" in error(STRICT, messages=looped[:3]).message
    assert "preceding message" in error(STRICT, messages=[HELLO, looped[2]]).message
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    assert "unavailable" in error(STRICT, response_format=schema).message
    for lenient in (answered, thought, looped, looped[:3], [HELLO, looped[2]], [HELLO, HELLO]):
        request(messages=lenient)


def test_strict_reading_knows_no_developer_and_no_parts_outside_user_messages() -> None:
    developer = [{"role": "developer", "content": "D"}, HELLO]
    assert error(STRICT, messages=developer).status == 422
    assert "unknown variant `developer`" in error(STRICT, messages=developer).message
    parts = [{"type": "text", "text": "one"}]
    request(STRICT, messages=[{"role": "user", "content": parts}])
    system = [{"role": "system", "content": parts}, HELLO]
    assert "invalid type: sequence" in error(STRICT, messages=system).message


def test_formats_become_what_the_engine_holds_the_answer_to() -> None:
    said = [{"role": "system", "content": "Answer in JSON"}, HELLO]
    asked = request(messages=said, response_format={"type": "json_object"})
    assert asked.answer_format == AnswerFormat("json_object")
    schema = {"name": "x", "schema": {"type": "object"}, "strict": True}
    asked = request(response_format={"type": "json_schema", "json_schema": schema})
    assert asked.answer_format == AnswerFormat("json_schema", '{"type":"object"}')
    assert error(response_format={"type": "json_object"}).message == (
        "Prompt must contain the word 'json' in some form to use 'response_format' of type "
        "'json_object'."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "gpt"}, "Model Not Exist"),
        ({"messages": []}, "Invalid messages value, there must be at least one message"),
        (
            {"max_tokens": 0},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 65536]",
        ),
        (
            {"max_completion_tokens": 65_537},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 65536]",
        ),
        (
            {"model": "deepseek-chat", "max_tokens": 8_193},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
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
    assert error(**fields) == ApiError(400, message)  # type: ignore[arg-type]


BAD_NAME = {"type": "function", "function": {"name": "a b"}}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"user_id": "a b"}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logprobs": True}, "`logprobs`"),
        ({"top_logprobs": 0}, "`top_logprobs`"),
        ({"model": "deepseek-chat", "top_logprobs": 3}, "top_logprobs"),
        ({"model": "deepseek-chat", "logprobs": True, "top_logprobs": 21}, "[0, 20]"),
        ({"tools": [BAD_NAME]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "a name of its own"),
        ({"tools": [WEATHER] * 129}, "128"),
        ({"tool_choice": "required"}, "needs tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "no tool x"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields: dict[str, object], name: str) -> None:
    refused = error(**fields)  # type: ignore[arg-type]
    assert refused.status == 400
    assert name in refused.message


FORM = "Failed to deserialize the JSON body into the target type: "


def body(**fields: object) -> str:
    return json.dumps({"model": "m", "messages": []} | fields)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[]", "Expected `object`, got `array`"),
        ('{"messages": []}', "missing field `model`"),
        (body(messages={}), "messages: Expected `array`, got `object`"),
        (body(messages=[3]), "messages[0]: Expected `object`, got `int`"),
        (body(messages=[{}]), "messages[0]: missing field `role`"),
        (body(messages=[{"role": "user"}]), "messages[0]: missing field `content`"),
        (
            body(messages=[{"role": "tool", "content": "x"}]),
            "messages[0]: missing field `tool_call_id`",
        ),
        (
            body(messages=[{"role": "boss", "content": ""}]),
            "messages[0].role: unknown variant `boss`, expected one of `system`, `user`, "
            "`assistant`, `tool`",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            "messages[0].content[0].type: unknown variant `image_url`, expected `text`",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0]: missing field `text`",
        ),
        (
            body(messages=[{"role": "assistant", "tool_calls": [{}]}]),
            "messages[0].tool_calls[0]: missing field `function`",
        ),
        (body(max_tokens=1.5), "max_tokens: Expected `int | null`, got `float`"),
        (body(stream="yes"), "stream: Expected `bool | null`, got `str`"),
        (body(tools=[{"type": "x", "function": {"name": "f"}}]), "tools[0].type: unknown variant"),
        (body(tools=[{"type": "function"}]), "tools[0]: missing field `function`"),
        (
            body(tools=[{"type": "function", "function": {"name": "f", "parameters": 3}}]),
            "tools[0].function.parameters: invalid type, expected an object",
        ),
        (body(tool_choice="any"), "tool_choice: unknown variant `any`"),
        (body(tool_choice={"type": "function"}), "tool_choice: missing field `function`"),
        (body(thinking={"type": "on"}), "thinking.type: unknown variant `on`"),
        (body(thinking={}), "thinking: missing field `type`"),
        (body(reasoning_effort="huge"), "reasoning_effort: unknown variant `huge`"),
        (body(response_format={"type": "xml"}), "response_format.type: unknown variant `xml`"),
        (
            body(response_format={"type": "json_schema"}),
            "response_format: missing field `json_schema`",
        ),
        (
            body(response_format={"type": "json_schema", "json_schema": {}}),
            "response_format.json_schema: missing field `schema`",
        ),
    ],
)
def test_json_that_is_no_request_is_unprocessable_and_says_where(body: str, message: str) -> None:
    refused = parse_chat_request(body.encode(), BOTH, rules_of(LENIENT), beta=False)
    assert isinstance(refused, ApiError)
    assert refused.status == 422
    assert refused.message.startswith(FORM + message)


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
        b'{"model":"m","messages":[],"tools":[' + b"[" * 100_000,
        b'{"model":"m","messages":[],"tool_choice":"\xff"}',
        b'{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f",'
        b'"parameters":{"a":"\xff"}}}]}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    result = parse_chat_request(body, BOTH, rules_of(LENIENT), beta=False)
    assert isinstance(result, ApiError)
    assert result.status == 400


def test_the_form_is_checked_before_the_model_and_the_model_before_ranges() -> None:
    assert error(model="gpt", max_tokens=0, stream="yes").status == 422
    assert error(model="gpt", max_tokens=0, logprobs=True).message == "Model Not Exist"
    assert "max_tokens" in error(max_tokens=0, logprobs=True).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
fields = st.sampled_from(
    [
        *("model", "messages", "n", "top_p", "tools", "tool_choice", "thinking", "stop"),
        *("response_format", "reasoning_effort", "logprobs", "stream_options", "user_id"),
    ]
)
message = st.dictionaries(
    st.sampled_from(["role", "content", "prefix", "tool_calls", "tool_call_id"]),
    json_values | st.sampled_from(["user", "assistant", "tool"]),
)


@settings(deadline=None)  # cores are shared
@given(
    body=st.binary()
    | st.builds(json.dumps, json_values).map(str.encode)
    | st.dictionaries(fields, json_values | st.lists(message)).map(lambda d: json.dumps(d).encode())
    | st.lists(message).map(
        lambda m: json.dumps({"model": "deepseek-reasoner", "messages": m}).encode()
    ),
    strict=st.booleans(),
)
def test_any_body_is_a_request_or_an_error(body: bytes, strict: bool) -> None:
    rules = rules_of(ApiSpec(strict=strict))
    result = parse_chat_request(body, BOTH, rules, beta=strict)
    assert isinstance(result, ChatRequest) or result.status in (400, 422)


def test_prompt_and_output_must_fit_the_context_to_the_token() -> None:
    limits = Limits(65_536, 4_096, 8_192)
    assert check_context(61_440, 4_096, limits) is None
    assert check_context(62_247, 4_096, limits) == ApiError(
        400,
        "This model's maximum context length is 65536 tokens. However, you requested 66343 tokens "
        "(62247 in the messages, 4096 in the completion). Please reduce the length of the messages "
        "or completion.",
    )
