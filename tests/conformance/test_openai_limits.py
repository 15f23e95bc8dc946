"""The official Python client: errors, time-outs, clients that leave."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import openai
import pytest

from tests.conformance.conftest import Server
from tests.conformance.openai_words import CHAT, LONG, REASONER, asynchronous, collect, user

pytestmark = pytest.mark.timeout(60)

# --- errors ------------------------------------------------------------------------------------


def error_of(error: openai.APIStatusError) -> Mapping[str, object]:
    """The error of the body, complete."""
    body = error.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    return body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "gpt-4o"}, "Model Not Exist"),
        ({"temperature": 3}, "Invalid temperature value"),
        ({"max_tokens": 100_000}, "Invalid max_tokens value, the valid range of max_tokens is"),
        ({"n": 2}, "Invalid n value (currently only n = 1 is supported)"),
        ({"logprobs": True}, "deepseek-reasoner does not support the parameter `logprobs`"),
        ({"response_format": {"type": "json_object"}}, "Prompt must contain the word 'json'"),
        ({"messages": []}, "Invalid messages value"),
        ({"tool_choice": "required"}, "Invalid tool_choice value"),
    ],
)
def test_a_request_that_cannot_be_granted_is_a_bad_request(
    client: openai.OpenAI, more: Mapping[str, Any], message: str, stream: bool
) -> None:
    arguments: Any = {"model": REASONER, "messages": user("Hello"), "stream": stream, **more}
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**arguments)
    assert message in raised.value.message
    assert error_of(raised.value)["type"] == "invalid_request_error"
    assert error_of(raised.value)["code"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hello"}]}, "unknown variant `robot`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"reasoning_effort": "heroic"}, "unknown variant `heroic`"),
        ({"extra_body": {"thinking": {"type": "maybe"}}}, "unknown variant `maybe`"),
    ],
)
def test_a_body_that_is_no_request_is_unprocessable(
    client: openai.OpenAI, more: Mapping[str, Any], place: str
) -> None:
    arguments: Any = {"model": REASONER, "messages": user("Hello"), **more}
    with pytest.raises(openai.UnprocessableEntityError, match="Failed to deserialize") as raised:
        client.chat.completions.create(**arguments)
    assert place in str(error_of(raised.value)["message"])


def test_a_wrong_key_is_an_authentication_error(member: openai.OpenAI) -> None:
    stranger = member.with_options(api_key="sk-unknown")
    for ask in (
        lambda: stranger.chat.completions.create(model=REASONER, messages=user("Hello")),
        stranger.models.list,
    ):
        with pytest.raises(openai.AuthenticationError, match=r"\*\*\*\*nown is invalid") as raised:
            ask()
        assert error_of(raised.value)["type"] == "authentication_error"


def test_a_suspended_tenant_has_an_insufficient_balance(member: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="Insufficient Balance") as raised:
        member.with_options(api_key="sk-unpaid").chat.completions.create(
            model=REASONER, messages=user("Hello")
        )
    assert raised.value.status_code == 402
    assert error_of(raised.value)["type"] == "unknown_error"


def test_one_request_too_many_is_a_rate_limit_and_a_retry_succeeds(member: openai.OpenAI) -> None:
    single = member.with_options(api_key="sk-single")
    with single.chat.completions.create(
        model=REASONER, messages=user("THINK 40 SAY: first"), stream=True
    ) as stream:
        next(stream)
        with pytest.raises(openai.RateLimitError, match="Rate limit reached") as raised:
            single.chat.completions.create(model=REASONER, messages=user("Hello"))
        assert raised.value.response.headers["retry-after"] == "1"
        assert error_of(raised.value)["type"] == "rate_limit_error"
        second = single.with_options(max_retries=2).chat.completions.create(
            model=REASONER, messages=user("SKIP SAY: second")
        )
        assert collect(stream).answer == "first"
    assert second.choices[0].message.content == "second"


def test_what_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.responses.create(model=REASONER, input="Hello"),
        lambda: client.completions.create(model=CHAT, prompt="a"),  # below /beta only
        lambda: client.models.retrieve("gpt-4o"),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            ask()
        error_of(raised.value)


# --- time --------------------------------------------------------------------------------------

READ_S = 0.6  # below the time of the answers, and well above that between keep-alives
SLOW = "word " * 55  # more than a second of prefill


@pytest.fixture
def hasty(slow_server: str) -> Iterator[openai.OpenAI]:
    """A client that waits for bytes a short time only."""
    patience = openai.Timeout(20, read=READ_S)
    with openai.OpenAI(
        base_url=slow_server, api_key="sk-test", max_retries=0, timeout=patience
    ) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_keep_alives_reset_the_read_timeout(hasty: openai.OpenAI, stream: bool) -> None:
    began = time.monotonic()
    messages = user(f"stream={stream} {SLOW} SAY: done")
    if stream:
        chunks = hasty.chat.completions.create(model=REASONER, messages=messages, stream=True)
        answer: str | None = collect(chunks).answer
    else:
        completion = hasty.chat.completions.create(model=REASONER, messages=messages)
        answer = completion.choices[0].message.content
    assert answer == "done"
    assert time.monotonic() - began > 1.5 * READ_S


async def test_keep_alives_reset_the_read_timeout_of_asyncio(slow_server: str) -> None:
    async with asynchronous(slow_server) as client:
        began = time.monotonic()
        completion = await client.with_options(
            timeout=openai.Timeout(20, read=READ_S)
        ).chat.completions.create(model=REASONER, messages=user(f"asyncio {SLOW} SAY: done"))
    assert completion.choices[0].message.content == "done"
    assert time.monotonic() - began > 1.5 * READ_S


def test_a_read_timeout_below_the_keep_alives_is_a_timeout_error(hasty: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        hasty.with_options(timeout=0.05).chat.completions.create(
            model=REASONER, messages=user(f"timeout {SLOW}")
        )


# --- abort -------------------------------------------------------------------------------------


def wait_until(running: int, server: Server) -> None:
    """Returns when the engines work on that many requests."""
    deadline = time.monotonic() + 5
    while (found := server.engine_running()) != running:
        assert time.monotonic() < deadline, f"{found} requests run"
        time.sleep(0.02)


def close_a_stream(client: openai.OpenAI, at_work: Callable[[], None]) -> None:
    stream = client.chat.completions.create(model=REASONER, messages=user(LONG), stream=True)
    next(stream)
    at_work()
    stream.close()


def leave_a_stream(client: openai.OpenAI, at_work: Callable[[], None]) -> None:
    with client.chat.completions.create(model=REASONER, messages=user(LONG), stream=True) as stream:
        for _ in stream:
            at_work()
            break


def leave_the_helper(client: openai.OpenAI, at_work: Callable[[], None]) -> None:
    with client.chat.completions.stream(model=REASONER, messages=user(LONG)) as stream:
        next(iter(stream))
        at_work()


def time_out(client: openai.OpenAI, at_work: Callable[[], None]) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model=REASONER, messages=user(LONG)
        )


@pytest.mark.parametrize("leave", [close_a_stream, leave_a_stream, leave_the_helper, time_out])
def test_a_client_that_leaves_frees_the_engine(
    guarded: Server,
    member: openai.OpenAI,
    leave: Callable[[openai.OpenAI, Callable[[], None]], None],
) -> None:
    leave(member, lambda: wait_until(1, guarded))
    wait_until(0, guarded)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_that_is_cancelled_frees_the_engine(guarded: Server, stream: bool) -> None:
    async with asynchronous(guarded.url, "sk-whole") as client:

        async def read() -> None:
            answer = await client.chat.completions.create(
                model=REASONER, messages=user(LONG), stream=stream
            )
            assert isinstance(answer, openai.AsyncStream)
            async for _ in answer:
                pass

        async with asyncio.TaskGroup() as group:
            task = group.create_task(read())
            await asyncio.to_thread(wait_until, 1, guarded)
            task.cancel()
        await asyncio.to_thread(wait_until, 0, guarded)
