"""Anthropic's official Python client: what its users write against DeepSeek's `/anthropic`."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import pytest
from anthropic.types import Message, MessageParam, ToolParam, ToolUseBlock

from orchestrator.gateway import key_line
from tests.conformance.conftest import Server, running
from tests.conformance.server import Settings

pytestmark = pytest.mark.timeout(30)

REASONER = "deepseek-reasoner"
CHAT = "deepseek-chat"
STREAM = pytest.mark.parametrize("stream", [False, True])
WEATHER: ToolParam = {
    "name": "weather",
    "description": "Get the weather in a location",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
CLOCK: ToolParam = {"name": "clock", "description": "Tell the time", "input_schema": {}}
LONG = "THINK 5000"  # 50 s at the pace of `guarded`


@pytest.fixture
def client(server: str) -> Iterator[anthropic.Anthropic]:
    with client_of(server) as client:
        yield client


def client_of(url: str, **more: object) -> anthropic.Anthropic:
    """No retries, which would hide failures."""
    settings = {"api_key": "sk-test", "max_retries": 0, "timeout": 30} | more
    return anthropic.Anthropic(base_url=f"{url}/anthropic", **settings)  # type: ignore[arg-type]


def user(text: str) -> list[MessageParam]:
    return [{"role": "user", "content": text}]


def say(
    client: anthropic.Anthropic,
    messages: str | list[MessageParam],
    *,
    stream: bool = False,
    **more: object,
) -> Message:
    """The message, whole or as the stream helper puts it together."""
    fields: dict[str, object] = {"model": REASONER, "max_tokens": 1000} | more
    fields["messages"] = user(messages) if isinstance(messages, str) else messages
    if not stream:
        return client.messages.create(**fields)  # type: ignore[call-overload,no-any-return]
    with client.messages.stream(**fields) as events:  # type: ignore[arg-type]
        return events.get_final_message()


def kinds(message: Message) -> list[str]:
    return [block.type for block in message.content]


def text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def thought(message: Message) -> str:
    return "".join(block.thinking for block in message.content if block.type == "thinking")


def calls(message: Message) -> list[ToolUseBlock]:
    return [block for block in message.content if block.type == "tool_use"]


# --- messages ----------------------------------------------------------------------------------


@STREAM
def test_a_reasoner_thinks_and_a_chat_model_does_not(
    client: anthropic.Anthropic, stream: bool
) -> None:
    message = say(client, "Why?", stream=stream)
    assert (message.type, message.role, message.model) == ("message", "assistant", REASONER)
    thinking, answer = message.content
    assert thinking.type == "thinking"
    assert (thinking.signature, thinking.thinking[:9]) == ("", "The user ")
    assert answer.type == "text"
    assert answer.text.startswith("You said: “Why?”.")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens > 10
    assert kinds(say(client, "Why?", model=CHAT, stream=stream)) == ["text"]


async def test_the_client_for_asyncio_streams_the_same(
    server: str, client: anthropic.Anthropic
) -> None:
    settings = {"base_url": f"{server}/anthropic", "auth_token": "sk-test", "max_retries": 0}
    async with (
        anthropic.AsyncAnthropic(**settings) as other,  # type: ignore[arg-type]
        other.messages.stream(
            model=REASONER, max_tokens=100, messages=user("SAY: Ça va 🙂")
        ) as stream,
    ):
        texts = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(texts) == text(message) == "Ça va 🙂"
    assert thought(message) == thought(say(client, "SAY: Ça va 🙂")) != ""


def test_a_stream_has_the_official_events_in_their_order(client: anthropic.Anthropic) -> None:
    events = [
        *client.messages.create(
            model=REASONER, max_tokens=100, messages=user("SAY: One two"), stream=True
        )
    ]
    kinds = [event.type for event in events]
    middle = [kind for kind in kinds if kind != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    assert middle == ["message_start", *block, *block, "message_delta", "message_stop"]
    assert [e.index for e in events if e.type == "content_block_start"] == [0, 1]
    start = events[0]
    assert start.type == "message_start"
    assert (start.message.content, start.message.stop_reason) == ([], None)
    assert start.message.usage.input_tokens > 0


@STREAM
def test_a_prompt_seen_before_is_reported_as_cached(
    client: anthropic.Anthropic, stream: bool
) -> None:
    question = f"stream={stream}: tell me of messages and caches. " * 40 + "THINK 5 SAY: yes"
    first, second = (say(client, question, stream=stream).usage for _ in range(2))
    assert (first.cache_read_input_tokens, first.cache_creation_input_tokens) == (0, 0)
    assert second.cache_read_input_tokens
    assert second.input_tokens + second.cache_read_input_tokens == first.input_tokens


def test_a_system_prompt_may_be_a_text_or_blocks(client: anthropic.Anthropic) -> None:
    plain = say(client, "Hello", system="Be brief.")
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    blocks = say(client, "Hello", system=[block])
    assert plain.usage.input_tokens == blocks.usage.input_tokens
    assert plain.usage.input_tokens > say(client, "Hello").usage.input_tokens


def test_a_name_that_there_is_not_means_the_chat_model(client: anthropic.Anthropic) -> None:
    message = say(client, "Hello", model="claude-any", max_tokens=64_000, stream=True)
    assert (message.model, kinds(message)) == (CHAT, ["text"])


def test_without_a_chat_model_it_means_the_reasoner(tmp_path: Path) -> None:
    with running(Settings(chat=False), tmp_path) as server, client_of(server.url) as client:
        message = say(client, "Hello", model="claude-any")
        assert (message.model, kinds(message)) == (REASONER, ["thinking", "text"])


def test_thinking_is_switched(client: anthropic.Anthropic) -> None:
    enabled = {"type": "enabled", "budget_tokens": 1024}
    assert kinds(say(client, "Hello", model=CHAT, thinking=enabled)) == ["thinking", "text"]
    assert kinds(say(client, "Hello", thinking={"type": "disabled"})) == ["text"]
    assert kinds(say(client, "Hello", thinking={"type": "adaptive"})) == ["thinking", "text"]


def test_thinking_blocks_that_come_back_cost_nothing(client: anthropic.Anthropic) -> None:
    first = say(client, "Hello")
    again: list[MessageParam] = [
        *user("Hello"),
        {"role": "assistant", "content": first.content},
        *user("More"),
    ]
    bare: list[MessageParam] = [
        *user("Hello"),
        {"role": "assistant", "content": text(first)},
        *user("More"),
    ]
    assert kinds(first) == ["thinking", "text"]
    assert say(client, again).usage == say(client, bare).usage


@pytest.mark.parametrize("model", [REASONER, CHAT])
def test_an_assistant_message_in_last_place_is_continued(
    client: anthropic.Anthropic, model: str
) -> None:
    messages: list[MessageParam] = [
        *user("SAY: One two three"),
        {"role": "assistant", "content": [{"type": "text", "text": "One two"}]},
    ]
    message = say(client, messages, model=model)
    assert (kinds(message), text(message)) == (["text"], " three")


@STREAM
def test_a_message_ends_at_its_bound_and_at_a_stop(
    client: anthropic.Anthropic, stream: bool
) -> None:
    short = say(client, "THINK 50", max_tokens=5, stream=stream)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)
    assert kinds(short) == ["thinking"]
    question = "SAY: One END two"
    one = say(client, question, stop_sequences=["END"], stream=stream)
    assert (text(one), one.stop_reason, one.stop_sequence) == ("One ", "stop_sequence", "END")
    many = say(client, question, stop_sequences=["END", "X"], stream=stream)
    assert (text(many), many.stop_reason, many.stop_sequence) == ("One ", "stop_sequence", None)


def test_what_deepseek_ignores_is_ignored(client: anthropic.Anthropic) -> None:
    message = say(
        client,
        [{"role": "user", "content": [{"type": "text", "text": "Hello", "citations": None}]}],
        metadata={"user_id": '{"device": "any form"}'},
        extra_body={"top_k": 5, "temperature": 0.5, "top_p": 0.9, "container": None},
        service_tier="auto",
        extra_headers={"anthropic-beta": "context-1m-2025-08-07"},
    )
    assert message.stop_reason == "end_turn"


def test_the_tokens_of_a_prompt_are_counted(client: anthropic.Anthropic) -> None:
    fields = {"model": REASONER, "messages": user("Hello"), "system": "Be brief."}
    counted = client.messages.count_tokens(**fields, tools=[WEATHER])  # type: ignore[arg-type]
    message = say(client, "Hello", system="Be brief.", tools=[WEATHER])
    assert counted.input_tokens == message.usage.input_tokens


# --- tools -------------------------------------------------------------------------------------


@STREAM
@pytest.mark.parametrize("model", [REASONER, CHAT])
def test_tools_are_called_also_in_parallel(
    client: anthropic.Anthropic, model: str, stream: bool
) -> None:
    tools = [CLOCK, WEATHER]
    one = say(client, "The weather in Ulm?", model=model, tools=tools, stream=stream)
    assert one.stop_reason == "tool_use"
    assert [call.name for call in calls(one)] == ["weather"]
    assert [*calls(one)[0].input] == ["location"]
    question = "The weather in Ulm and in Bern?"
    two = say(client, question, model=model, tools=tools, stream=stream)
    assert len({call.id for call in calls(two)}) == 2
    places = [str(call.input["location"]) for call in calls(two)]
    assert ("Ulm" in places[0], "Bern" in places[1]) == (True, True)


@STREAM
@pytest.mark.parametrize("swapped", [False, True])
def test_results_are_understood_in_either_order(
    client: anthropic.Anthropic, swapped: bool, stream: bool
) -> None:
    question = "The weather in Ulm and in Bern?"
    asked = say(client, question, tools=[WEATHER], stream=stream)
    first, second = (call.id for call in calls(asked))
    results: list[object] = [
        {"type": "tool_result", "tool_use_id": first, "content": "rain"},
        {
            "type": "tool_result",
            "tool_use_id": second,
            "content": [{"type": "text", "text": "sun"}],
            "is_error": False,
        },
    ]
    messages: list[object] = [
        *user(question),
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": results[::-1] if swapped else results},
    ]
    message = say(client, messages, tools=[WEATHER], stream=stream)  # type: ignore[arg-type]
    assert text(message) == "The tools say: rain; sun. I hope that helps you."
    assert message.stop_reason == "end_turn"


def test_the_choice_among_tools_is_kept(client: anthropic.Anthropic) -> None:
    def chosen(**choice: str) -> list[str]:
        message = say(client, "Hello", tools=[WEATHER, CLOCK], tool_choice=choice)
        return [call.name for call in calls(message)]

    assert chosen(type="auto") == []
    assert chosen(type="none") == []
    assert chosen(type="tool", name="clock") == ["clock"]
    assert len(chosen(type="any")) == 1


@STREAM
def test_arguments_that_are_no_json_are_an_empty_object(
    client: anthropic.Anthropic, stream: bool
) -> None:
    message = say(client, "The weather BAD-JSON", tools=[WEATHER], stream=stream)
    assert [call.input for call in calls(message)] == [{}]
    assert message.stop_reason == "tool_use"


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "Invalid max_tokens value"),
        ({"extra_body": {"temperature": 3}}, "Invalid temperature value"),
        ({"stop_sequences": ["x"] * 17}, "Invalid stop value"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role: unknown variant"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].type: unknown variant `image`, expected one of `text`",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]: missing field `text`",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "Invalid 'tools[0]"),
        ({"tool_choice": {"type": "any"}}, "`required` needs tools"),
        ({"tool_choice": {"type": "tool", "name": "a"}}, "there is no tool a"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type: unknown variant"),
    ],
)
def test_what_cannot_be_granted_is_a_bad_request(
    client: anthropic.Anthropic, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        say(client, fields.pop("messages", "Hello"), **fields)  # type: ignore[arg-type]
    error = caught.value
    assert error.type == "invalid_request_error"
    assert isinstance(error.body, dict)
    assert error.body["type"] == "error"
    assert words in error.body["error"]["message"]


def test_what_is_not_served_is_not_found(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.batches.list()
    assert caught.value.type == "not_found_error"


def test_keys_are_checked_and_their_limits_kept(tmp_path: Path) -> None:
    keys, tenants = tmp_path / "keys", tmp_path / "tenants.yaml"
    keys.write_text(f"{key_line('ada', 'sk-ada')}\n{key_line('bob', 'sk-bob')}\n")
    tenants.write_text("tenants: {ada: {requests_max: 1}, bob: {suspended: true}}")
    settings = Settings(api={"keys_path": str(keys), "tenants_path": str(tenants)}, step_s=0.01)
    with running(settings, tmp_path) as server:
        with client_of(server.url, api_key="sk-eve") as eve:
            with pytest.raises(anthropic.AuthenticationError) as unknown:
                say(eve, "Hello")
            with pytest.raises(anthropic.AuthenticationError):
                eve.messages.count_tokens(model=REASONER, messages=user("Hello"))
        assert unknown.value.type == "authentication_error"
        with (
            client_of(server.url, api_key="sk-bob") as bob,
            pytest.raises(anthropic.PaymentRequiredError) as suspended,
        ):
            say(bob, "Hello")
        assert suspended.value.type == "billing_error"
        with client_of(server.url, api_key="sk-ada") as ada:
            with ada.messages.stream(
                model=REASONER, max_tokens=5000, messages=user(LONG)
            ) as stream:
                next(iter(stream))
                with pytest.raises(anthropic.RateLimitError) as limited:
                    say(ada, "Hello")
            assert limited.value.type == "rate_limit_error"
            assert limited.value.response.headers["retry-after"] == "1"


# --- keep-alive and abort ----------------------------------------------------------------------


@STREAM
def test_keep_alives_reset_the_read_timeout(slow_server: str, stream: bool) -> None:
    question = f"SAY: ok {'slowly ' * 50}{stream}"  # about a second of prefill, more than 0.6
    with client_of(slow_server, timeout=0.6) as hasty:
        assert say(hasty, question, stream=stream).stop_reason == "end_turn"


def test_the_keep_alives_of_a_stream_are_pings_and_those_of_a_body_blank_lines(
    slow_server: str,
) -> None:
    body = {"model": REASONER, "max_tokens": 50, "messages": user(f"Slow {'ly ' * 50}")}
    url = f"{slow_server}/anthropic/v1/messages"
    streamed = httpx.post(url, json=body | {"stream": True}, timeout=30)
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.text.startswith('event: ping\ndata: {"type":"ping"}\n\n')
    body["messages"] = user(f"Slow, too {'ly ' * 50}")
    whole = httpx.post(url, json=body, timeout=30)
    assert whole.headers["content-type"] == "application/json"
    assert whole.text.startswith("\n")
    assert json.loads(whole.text)["type"] == "message"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose engines can be looked at, at ten milliseconds a token."""
    with running(Settings(step_s=0.01), tmp_path_factory.mktemp("guarded")) as server:
        yield server


def wait_until(running: int, server: Server) -> None:
    """Returns when the engines work on that many requests."""
    deadline = time.monotonic() + 5
    while (found := server.engine_running()) != running:
        assert time.monotonic() < deadline, f"{found} requests run"
        time.sleep(0.02)


def close_a_stream(client: anthropic.Anthropic, at_work: Callable[[], None]) -> None:
    with client.messages.stream(model=REASONER, max_tokens=9000, messages=user(LONG)) as stream:
        next(iter(stream))
        at_work()


def time_out(client: anthropic.Anthropic, at_work: Callable[[], None]) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        say(client.with_options(timeout=0.5), LONG, max_tokens=9000)


@pytest.mark.parametrize("leave", [close_a_stream, time_out])
def test_a_client_that_leaves_frees_the_engine(
    guarded: Server, leave: Callable[[anthropic.Anthropic, Callable[[], None]], None]
) -> None:
    with client_of(guarded.url) as client:
        leave(client, lambda: wait_until(1, guarded))
        wait_until(0, guarded)
