"""The translator between Anthropic's Messages API and chat requests, and what fails late."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.codec import (
    AnswerText,
    AssistantMessage,
    Conversation,
    NamedTool,
    Piece,
    Prefix,
    ReasoningText,
    SystemMessage,
    Tokenizer,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    ToolDefinition,
    ToolMessage,
    ToolMode,
    UserMessage,
)
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.gateway.anthropic_request import parse_count, parse_create
from orchestrator.gateway.anthropic_wire import Facts, MessageReply, MessageStream, error_of
from orchestrator.gateway.chat_request import ChatRequest
from orchestrator.gateway.errors import ApiError, bad_request, overloaded, unprocessable
from orchestrator.gateway.rules import rules_of
from orchestrator.gateway.wire import FinishReason, Reply, ReplyHead, Usage
from orchestrator.spec import (
    AdmissionSpec,
    ApiSpec,
    EngineKind,
    GatewaySpec,
    HandoffSpec,
    ModelSpec,
    PoolSpec,
    local_spec,
    public_names,
)
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

R1 = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), "DeepSeek-R1-0528")
V3 = ModelSpec("unused", (PoolSpec(Role.UNIFIED),), "DeepSeek-V3-0324")
BOTH = public_names((R1, V3))
RULES = rules_of(ApiSpec())
HELLO = {"role": "user", "content": "Hello"}
TOOL = {"name": "weather", "description": "How it is", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Ulm", "n": [1, 2]}}


def text(content: str) -> dict[str, object]:
    return {"type": "text", "text": content}


def parse(names: Mapping[str, ModelSpec] = BOTH, /, **fields: object) -> ChatRequest | ApiError:
    body = {"model": "deepseek-reasoner", "max_tokens": 100, "messages": [HELLO]} | fields
    return parse_create(json.dumps(body).encode(), names, RULES)


def request(names: Mapping[str, ModelSpec] = BOTH, /, **fields: object) -> ChatRequest:
    result = parse(names, **fields)
    assert isinstance(result, ChatRequest), result
    return result


def error(**fields: object) -> str:
    result = parse(**fields)
    assert isinstance(result, ApiError), result
    return result.message


def conversation(*messages: object) -> Conversation:
    return request(messages=messages).conversation


# --- requests ----------------------------------------------------------------------------------


def test_the_least_request_is_a_chat_request() -> None:
    least = request()
    assert (least.name, least.model, least.thinks, least.stream) == (
        "deepseek-reasoner",
        R1,
        True,
        False,
    )
    assert least.conversation == Conversation((UserMessage("Hello"),))
    assert least.drawing.max_tokens == 100


def test_every_field_arrives() -> None:
    full = request(
        system=[text("Be"), text("brief.")],
        tools=[TOOL | {"type": "custom", "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        temperature=2,
        top_p=0.5,
        stream=True,
        metadata={"user_id": "any {form}", "other": 1},
        top_k=3,
    )
    assert full.conversation.messages == (SystemMessage("Be\nbrief."), UserMessage("Hello"))
    definition = ToolDefinition("weather", "How it is", '{"type": "object"}')
    assert full.conversation.tools == (definition,)
    assert full.tools.held == NamedTool("weather")
    assert full.drawing.stop == ("END",)
    assert (full.drawing.temperature, full.drawing.top_p) == (2, 0.5)
    assert (full.stream, full.user_id) == (True, "any {form}")


def test_null_is_absence() -> None:
    optional = (
        "system tools tool_choice thinking stop_sequences temperature top_p stream metadata top_k"
    )
    assert request(**dict.fromkeys(optional.split())) == request()


def test_blocks_become_turns() -> None:
    turns = conversation(
        {"role": "user", "content": [text("How is"), text("it?")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                text("I look."),
                USE,
                USE | {"id": "b", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "b", "is_error": True},
                {"type": "tool_result", "tool_use_id": "a", "content": [text("rain"), text("!")]},
                text("So?"),
            ],
        },
    )
    calls = (ToolCall("weather", '{"city": "Ulm", "n": [1, 2]}'), ToolCall("weather", "{}"))
    assert turns.messages == (
        UserMessage("How is\nit?"),
        AssistantMessage("I look.", calls),
        ToolMessage("rain\n!"),
        ToolMessage(""),
        UserMessage("So?"),
    )


def test_an_assistant_message_in_last_place_is_the_beginning_of_the_answer() -> None:
    begun = conversation(HELLO, {"role": "assistant", "content": [text("Well")]})
    assert begun == Conversation((UserMessage("Hello"),), prefix=Prefix(None, "Well"))
    empty = conversation(HELLO, {"role": "assistant", "content": ""})
    assert empty == Conversation((UserMessage("Hello"),))
    assert "tool_result" in error(messages=[HELLO, {"role": "assistant", "content": [USE]}])


@pytest.mark.parametrize(
    ("choice", "held"),
    [({"type": "auto"}, None), ({"type": "any"}, ToolMode.REQUIRED), (None, None)],
)
def test_the_choice_among_tools_is_translated(choice: object, held: object) -> None:
    tools = request(tools=[TOOL], tool_choice=choice).tools
    assert (len(tools.definitions), tools.held) == (1, held)


def test_of_tools_that_must_not_be_called_the_model_hears_nothing() -> None:
    assert not request(tools=[TOOL], tool_choice={"type": "none"}).conversation.tools


def test_a_name_that_there_is_not_means_the_chat_model_or_else_the_reasoner() -> None:
    assert request(model="claude-any").name == "deepseek-chat"
    assert request(public_names((R1,)), model="claude-any").name == "deepseek-reasoner"
    bare = public_names((replace(R1, aliases=()),))
    assert isinstance(parse(bare, model="claude-any"), ApiError)


def test_thinking_moves_a_name_between_the_models() -> None:
    enabled, disabled = ({"type": kind, "budget_tokens": 5} for kind in ("enabled", "disabled"))
    assert request(model="claude-any", thinking=enabled).model == R1
    assert request(thinking=disabled).model == V3
    alone = request(public_names((R1,)), thinking=disabled)
    assert (alone.conversation.suppress_thinking, alone.thinks) == (True, False)
    assert request(thinking={"type": "adaptive"}).thinks


def test_more_tokens_than_the_model_may_write_are_as_many_as_it_may() -> None:
    assert request(max_tokens=10**9).drawing.max_tokens == 65_536
    assert request(model="deepseek-chat", max_tokens=64_000).drawing.max_tokens == 8_192
    assert "Invalid max_tokens value" in error(max_tokens=0)


def test_a_strict_profile_speaks_of_chat_requests_only() -> None:
    body = json.dumps({"model": "deepseek-reasoner", "max_tokens": 1, "messages": [HELLO, HELLO]})
    result = parse_create(body.encode(), BOTH, rules_of(ApiSpec(strict=True)))
    assert isinstance(result, ChatRequest)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Expected `int`, got `null`"),
        ({"messages": []}, "messages: there must be at least one message"),
        ({"messages": [{"role": "user"}]}, "messages[0]: missing field `content`"),
        (
            {"messages": [{"role": "user", "content": [USE]}]},
            "messages[0].content[0]: `tool_use` is for messages of the role assistant",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "redacted_thinking"}]}]},
            "messages[0].content[0].type: unknown variant `redacted_thinking`, expected one of "
            "`text`, `tool_use`, `tool_result`, `thinking`",
        ),
        ({"system": [USE]}, "system[0].type: only `text` may stand here"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema: Expected `object`, got `null`"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice: missing field `name`"),
    ],
)
def test_a_body_that_is_no_request_says_where(fields: dict[str, object], message: str) -> None:
    assert error(**fields).endswith(message)


def test_a_request_for_a_count_needs_no_bound() -> None:
    body = {"model": "deepseek-reasoner", "messages": [HELLO], "system": "Be brief."}
    counted = parse_count(json.dumps(body).encode(), BOTH, RULES)
    assert isinstance(counted, ChatRequest)
    assert counted.conversation == request(system="Be brief.").conversation


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
kinds = st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image", "any", "custom"])
block = st.fixed_dictionaries(
    {"type": kinds},
    optional={
        "text": st.text(max_size=5),
        "id": st.text(max_size=5),
        "tool_use_id": st.text(max_size=5),
        "name": st.text(max_size=5),
        "input": st.dictionaries(st.text(max_size=5), json_values) | json_values,
        "content": json_values,
    },
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.text(max_size=5) | st.lists(block, max_size=3) | json_values,
    }
)
body = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["deepseek-reasoner", "deepseek-chat", "x"]),
        "max_tokens": st.integers(),
        "messages": st.lists(message, max_size=4),
    },
    optional={
        "system": st.lists(block, max_size=2) | json_values,
        "tools": st.lists(block | json_values, max_size=2),
        "tool_choice": block | json_values,
        "thinking": st.sampled_from([{"type": "enabled"}, {"type": "disabled"}]) | json_values,
        "stop_sequences": st.lists(st.text(max_size=5)) | json_values,
        "metadata": json_values,
    },
)


@given(st.binary() | (body | json_values).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_an_error_of_the_client(data: bytes) -> None:
    for parse_body in (parse_create, parse_count):
        result = parse_body(data, BOTH, RULES)
        assert isinstance(result, ChatRequest) or error_of(result)[0] == 400


# --- replies -----------------------------------------------------------------------------------

HEAD = ReplyHead("96ab47fa-9056-448e-8293-24546c4b4c2a", 1786782774, "deepseek-reasoner", "fp_1")
USAGE = Usage(prompt_tokens=97, cached_tokens=70, completion_tokens=131, reasoning_tokens=113)
PIECES = (
    ReasoningText("We \u2028"),
    ReasoningText(" so"),
    AnswerText("One"),
    ToolCallStart(0, "weather"),
    ToolCallArguments(0, '{"city"'),
    ToolCallArguments(0, ': "Ulm"}'),
    ToolCallStart(1, "clock"),
    AnswerText("Two"),
)
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


class Output:
    """A splitter's end."""

    def __init__(self, *, stopped: bool = False) -> None:
        self.stopped = stopped


FACTS = Facts(97, (), Output())


def sent(reply: Reply, pieces: Sequence[Piece], reason: FinishReason) -> bytes:
    return b"".join([*(reply.push([piece]) for piece in pieces), reply.end(reason, USAGE)])


def whole(
    pieces: Sequence[Piece] = PIECES,
    reason: FinishReason = FinishReason.TOOL_CALLS,
    facts: Facts = FACTS,
) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(sent(MessageReply(HEAD, facts), pieces, reason))
    Message.model_validate(read)  # not as leniently as the client does
    return read


def events(
    pieces: Sequence[Piece] = PIECES, reason: FinishReason = FinishReason.TOOL_CALLS
) -> list[dict[str, Any]]:
    read = []
    for frame in sent(MessageStream(HEAD, FACTS), pieces, reason).decode().split("\n\n")[:-1]:
        head, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        read.append(event)
    return read


def assembled(stream: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that the events of a stream add up to."""
    content: list[dict[str, Any]] = []
    for event in stream:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(content)
                content.append(dict(event["content_block"]))
            case "content_block_delta":
                block, delta = content[event["index"]], event["delta"]
                if delta["type"] == "input_json_delta":
                    block["input"] = json.loads(delta["partial_json"])
                else:
                    block[block["type"]] += delta[block["type"]]
            case _:
                pass
    return content


def test_a_message_has_a_block_for_each_part_in_its_order() -> None:
    message = whole()
    first, second = (block["id"] for block in message["content"] if block["type"] == "tool_use")
    assert message == {
        "id": HEAD.id,
        "type": "message",
        "role": "assistant",
        "model": "deepseek-reasoner",
        "content": [
            {"type": "thinking", "thinking": "We \u2028 so", "signature": ""},
            {"type": "text", "text": "One"},
            {"type": "tool_use", "id": first, "name": "weather", "input": {"city": "Ulm"}},
            {"type": "tool_use", "id": second, "name": "clock", "input": {}},
            {"type": "text", "text": "Two"},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 33,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 64,
            "output_tokens": 131,
        },
    }
    assert first.startswith("toolu_00_")
    assert second.startswith("toolu_01_")


def test_a_stream_adds_up_to_the_message() -> None:
    stream = events()
    for event in stream:
        EVENT.validate_python(event)
    assert assembled(stream) == whole()["content"]
    assert stream[0]["message"]["usage"]["input_tokens"] == 97
    assert [event["type"] for event in stream[-2:]] == ["message_delta", "message_stop"]
    assert stream[-2]["usage"] == whole()["usage"]
    assert stream[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert b"\xe2\x80\xa8" not in sent(MessageStream(HEAD, FACTS), PIECES, FinishReason.STOP)


def test_a_reply_without_anything_has_no_blocks() -> None:
    assert whole((), FinishReason.STOP)["content"] == []
    assert [event["type"] for event in events((), FinishReason.STOP)] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize("written", ["", "{", "[1]", "nothing", '{"a": 1} and more', "[" * 5000])
def test_arguments_that_are_no_object_are_an_empty_one(written: str) -> None:
    call: list[Piece] = [ToolCallStart(0, "weather")]
    if written:
        call.append(ToolCallArguments(0, written))
    assert whole(call)["content"][0]["input"] == {}
    assert assembled(events(call)) == whole(call)["content"]


@pytest.mark.parametrize(
    ("reason", "stops", "stopped", "told"),
    [
        (FinishReason.STOP, (), False, ("end_turn", None)),
        (FinishReason.STOP, (), True, ("end_turn", None)),  # R1-Zero closed its answer
        (FinishReason.STOP, ("x",), False, ("end_turn", None)),
        (FinishReason.STOP, ("x",), True, ("stop_sequence", "x")),
        (FinishReason.STOP, ("x", "y"), True, ("stop_sequence", None)),
        (FinishReason.LENGTH, ("x",), False, ("max_tokens", None)),
        (FinishReason.TOOL_CALLS, ("x",), False, ("tool_use", None)),
        (FinishReason.INSUFFICIENT_SYSTEM_RESOURCE, (), False, ("max_tokens", None)),
    ],
)
def test_every_end_has_its_stop_reason(
    reason: FinishReason, stops: tuple[str, ...], stopped: bool, told: tuple[str, str | None]
) -> None:
    message = whole((), reason, Facts(1, stops, Output(stopped=stopped)))
    assert (message["stop_reason"], message["stop_sequence"]) == told


def test_a_stream_that_fails_late_ends_in_an_error() -> None:
    stream = events(PIECES[:2], FinishReason.INSUFFICIENT_SYSTEM_RESOURCE)
    assert stream[-1]["error"]["type"] == "overloaded_error"
    assert all(event["type"] != "message_stop" for event in stream)


@given(st.lists(st.sampled_from(PIECES[:4] + PIECES[6:]), max_size=8), st.data())
def test_the_blocks_do_not_depend_on_how_the_pieces_came(
    pieces: list[Piece], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(pieces)))
    reply = MessageReply(HEAD, FACTS)
    for part in (pieces[:cut], pieces[cut:]):
        assert reply.push(part) == b""
    at_once = json.loads(reply.end(FinishReason.STOP, USAGE))
    assert at_once["content"] == whole(pieces)["content"] == assembled(events(pieces))


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (bad_request("x"), 400, "invalid_request_error"),
        (unprocessable("x"), 400, "invalid_request_error"),
        (ApiError(405, "x"), 405, "invalid_request_error"),
        (overloaded("x"), 529, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_shape(error: ApiError, status: int, kind: str) -> None:
    content = {"type": kind, "message": error.message}
    found = error_of(error)
    assert (found[0], json.loads(found[1])) == (status, {"type": "error", "error": content})


# --- failures, over the whole gateway ----------------------------------------------------------

ASKED: dict[str, Any] = {
    "model": "deepseek-reasoner",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "Why is the sky blue? " * 10}],
}


@asynccontextmanager
async def served(
    tokenizer: Tokenizer, logs: Path
) -> AsyncIterator[tuple[GatewayStack, anthropic.AsyncAnthropic]]:
    """A narrow gateway that gives up soon, and a client of it."""
    spec = local_spec(EngineKind.FAKE, 3, "unused")
    spec = replace(
        spec,
        handoff=HandoffSpec(resume_wait_s=0.2),
        gateway=GatewaySpec(keep_alive_s=0.05),
        channel=replace(spec.channel, max_requests=1),
        admission=AdmissionSpec(queue_requests_max=1),
    )
    slow = FakeEngineSpec(step_s=0.02, prefill_s_per_token=0.0)
    ranks = [Rank(Role.PREFILL, "p", slow), Rank(Role.DECODE, "d", slow)]
    async with gateway_stack(spec, {spec.models[0].name: tokenizer}, ranks, logs) as running:
        url = f"{running.url}/anthropic"
        async with anthropic.AsyncAnthropic(
            base_url=url, api_key="sk-any", max_retries=0, timeout=20
        ) as client:
            yield running, client


async def test_what_fails_late_is_an_error_in_a_stream_and_a_message_cut_short_in_a_body(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for stream in (False, True):
        async with served(tokenizer, tmp_path) as (running, client):
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(outcome(client, stream=stream))
                await until(lambda: running.ranks["d"].engine.load().running > 0)
                await asyncio.sleep(0.2)
                running.ranks["d"].server.close("the test kills it")
            ended = asked.result()
            if stream:
                assert isinstance(ended, anthropic.APIStatusError)
                assert ended.type == "overloaded_error"
            else:
                assert isinstance(ended, Message)
                assert ended.stop_reason == "max_tokens"
                assert ended.content


async def outcome(
    client: anthropic.AsyncAnthropic, *, stream: bool
) -> Message | anthropic.APIStatusError:
    try:
        if not stream:
            message: Message = await client.messages.create(**ASKED)
            return message
        async with client.messages.stream(**ASKED) as events:
            return await events.get_final_message()
    except anthropic.APIStatusError as error:
        return error


async def test_more_than_the_queue_holds_is_an_overloaded_error(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with served(tokenizer, tmp_path) as (_, client):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(outcome(client, stream=False)) for _ in range(4)]
        refused = [end for task in asked if not isinstance(end := task.result(), Message)]
        assert [type(error) for error in refused] == [anthropic.OverloadedError] * 2
        assert all(int(error.response.headers["retry-after"]) > 0 for error in refused)
