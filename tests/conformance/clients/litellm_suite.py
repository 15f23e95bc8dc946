"""LiteLLM's `deepseek/` provider against the gateways that the environment names.

Run by the interpreter in .clients/litellm, which has no pytest; see
tests/conformance/test_litellm.py. Prints a line for each check and ends with 0 if all have passed.
"""

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable

import httpx
import litellm
import openai
from pydantic import BaseModel

URL = os.environ["R1_SERVE_URL"]
SLOW_URL = os.environ["R1_SERVE_SLOW_URL"]  # keep-alives every 0.2 s
GUARDED_URL = os.environ["R1_SERVE_GUARDED_URL"]  # has keys; 10 ms for a token

REASONER = "deepseek/deepseek-reasoner"
CHAT = "deepseek/deepseek-chat"
LONG = "THINK 5000"  # 50 s at the pace of the guarded server
READ_S = 0.6  # below the time of slow answers, and well above that between keep-alives
SLOW = "word " * 55  # more than a second of prefill
PARALLEL = "What is the weather in Paris and in London?"
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
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tell the time"}}
# To look for MCP servers among the tools, this version imports `mcp`, which it does not depend on.
NO_MCP = {"_skip_mcp_handler": True}


Message = dict[str, object]
Arguments = dict[str, object]


class Person(BaseModel):
    """What structured output is asked for."""

    name: str
    age: int


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def arguments_of(question: str | list[Message], more: Arguments) -> Arguments:
    messages = user(question) if isinstance(question, str) else question
    fixed = {"model": REASONER, "api_base": URL, "api_key": "sk-test", "max_retries": 0}
    return fixed | {"messages": messages} | (NO_MCP if "tools" in more else {}) | more


def ask(question: str | list[Message], **more: object) -> litellm.ModelResponse:
    return litellm.completion(**arguments_of(question, more))


def stream(question: str | list[Message], **more: object) -> litellm.CustomStreamWrapper:
    return litellm.completion(**arguments_of(question, more), stream=True)


def error_of(question: str | list[Message], **more: object) -> openai.APIError:
    """The error that a question ends in; LiteLLM's derive from those of `openai`."""
    try:
        ask(question, **more)
    except openai.APIError as error:
        return error
    raise AssertionError("no error")


def order_of(chunks: Iterable[litellm.ModelResponseStream]) -> list[str]:
    """The parts of a stream, a run of equal ones once."""
    order: list[str] = []
    for chunk in chunks:
        delta = chunk.choices[0].delta
        part = "reasoning" if getattr(delta, "reasoning_content", None) else ""
        part = "answer" if delta.content else part
        part = "call" if delta.tool_calls else part
        if part and order[-1:] != [part]:
            order.append(part)
    return order


def calls_of(message: litellm.Message) -> list[tuple[str, object]]:
    calls = message.tool_calls or ()
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


# --- the checks --------------------------------------------------------------------------------


def check_stream(chunks: list[litellm.ModelResponseStream]) -> None:
    assert order_of(chunks) == ["reasoning", "answer"]
    usages = [usage for chunk in chunks if (usage := getattr(chunk, "usage", None))]
    assert len(usages) == 1
    assert 0 < usages[0].completion_tokens_details.reasoning_tokens < usages[0].completion_tokens
    whole = litellm.stream_chunk_builder(chunks)
    assert "Why is the sky blue?" in whole.choices[0].message.reasoning_content
    assert whole.choices[0].message.content.endswith("I hope it helps you. 😊")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == usages[0].total_tokens


def a_stream_is_reasoning_then_answer_with_the_usage_at_its_end() -> None:
    for path in ("", "/v1", "/beta"):
        usage = {"include_usage": True}
        chunks = stream("Why is the sky blue?", api_base=URL + path, stream_options=usage)
        check_stream(list(chunks))


def a_stream_for_asyncio_is_the_same() -> None:
    async def read() -> list[litellm.ModelResponseStream]:
        more = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = await litellm.acompletion(**arguments_of("Why is the sky blue?", more))
        return [chunk async for chunk in chunks]

    check_stream(asyncio.run(read()))


def an_answer_in_one_piece_has_reasoning_beside_the_content() -> None:
    for path in ("", "/v1", "/beta"):
        answer = ask("Hello", api_base=URL + path)
        message = answer.choices[0].message
        assert "The user says “Hello”" in message.reasoning_content
        assert message.content == "Hello! How can I help you today?"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    chat = ask("Hello", model=CHAT).choices[0].message
    assert getattr(chat, "reasoning_content", None) is None


def a_prompt_seen_before_is_reported_as_cached() -> None:
    question = "litellm: tell me all about caches. " * 40 + "THINK 5 SAY: done"
    assert ask(question).usage.prompt_tokens_details.cached_tokens == 0
    usage = ask(question).usage
    assert usage.prompt_tokens_details.cached_tokens >= 256
    assert usage.prompt_cache_hit_tokens == usage.prompt_tokens_details.cached_tokens
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens


def thinking_is_switched() -> None:
    switches: tuple[tuple[str, Arguments, bool], ...] = (
        (CHAT, {"thinking": {"type": "enabled"}}, True),
        (CHAT, {"extra_body": {"thinking": {"type": "enabled"}}}, True),
        (REASONER, {"thinking": {"type": "disabled"}}, False),
        (REASONER, {"reasoning_effort": "none"}, False),
        (REASONER, {"reasoning_effort": "low"}, True),
        (REASONER, {"extra_body": {"reasoning_effort": "medium"}}, True),
    )
    for model, more, thinks in switches:
        message = ask("Hello", model=model, **more).choices[0].message
        assert bool(getattr(message, "reasoning_content", None)) is thinks, (model, more)
        assert message.content == "Hello! How can I help you today?"


def reasoning_that_is_sent_back_costs_nothing() -> None:
    first = ask("THINK 150 SAY: Rome.").choices[0].message
    messages = [*user("THINK 150 SAY: Rome."), first.model_dump(), *user("SAY: In Italy.")]
    second = ask(messages, thinking={"type": "enabled"})
    assert second.choices[0].message.content == "In Italy."
    assert second.usage.prompt_tokens < 80


def a_beginning_is_continued_below_beta_and_refused_elsewhere() -> None:
    prefix = {"role": "assistant", "content": "Roses are", "prefix": True}
    messages = [*user("SAY: Roses are red, violets are blue."), prefix]
    answer = ask(messages, api_base=f"{URL}/beta")
    assert answer.choices[0].message.content == " red, violets are blue."
    error = error_of(messages)
    assert isinstance(error, litellm.BadRequestError), error
    assert "set base_url to end with /beta" in str(error)


def a_middle_is_filled_in_below_beta() -> None:
    # The provider `deepseek` would make a chat of it.
    request = {
        "model": "text-completion-openai/deepseek-chat",
        "prompt": "def double(x):",
        "suffix": "print(double(3))",
        "api_base": f"{URL}/beta",
        "api_key": "sk-test",
    }
    whole = litellm.text_completion(**request)
    assert whole.choices[0].text == "\n    return result\n"
    chunks = litellm.text_completion(**request, stream=True)
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == "\n    return result\n"


def tools_are_called_one_by_one_in_parallel_and_from_a_stream() -> None:
    for model in (REASONER, CHAT):
        for question, places in (
            ("What is the weather in Rome?", ["Rome"]),
            (PARALLEL, ["Paris", "London"]),
        ):
            expected = [("weather", {"location": place}) for place in places]
            whole = ask(question, model=model, tools=[CLOCK, WEATHER])
            assert calls_of(whole.choices[0].message) == expected
            assert whole.choices[0].finish_reason == "tool_calls"
            chunks = list(stream(question, model=model, tools=[CLOCK, WEATHER]))
            assert order_of(chunks)[-1] == "call"
            assert sum(bool(chunk.choices[0].delta.tool_calls) for chunk in chunks) > 3
            built = litellm.stream_chunk_builder(chunks)
            assert calls_of(built.choices[0].message) == expected
            assert chunks[-1].choices[0].finish_reason == "tool_calls"


def the_results_of_tools_are_understood() -> None:
    for model in (REASONER, CHAT):
        messages = user(PARALLEL)
        asked = ask(messages, model=model, tools=[WEATHER]).choices[0].message
        messages.append(asked.model_dump())
        for call, text in zip(asked.tool_calls, ("sun", "rain"), strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})
        told = ask(messages, model=model, tools=[WEATHER]).choices[0].message
        assert told.content == "The tools say: sun; rain. I hope that helps you."
        messages += [told.model_dump(), *user("What is the weather in Rome?")]
        again = ask(messages, model=model, tools=[WEATHER]).choices[0].message
        assert calls_of(again) == [("weather", {"location": "Rome"})]


def the_choice_among_tools_is_kept() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    choices: tuple[tuple[object, list[str]], ...] = (
        ("auto", []),
        ("none", []),
        ("required", ["clock"]),
        (named, ["weather"]),
    )
    for choice, called in choices:
        answer = ask("Hello", tools=[CLOCK, WEATHER], tool_choice=choice).choices[0].message
        assert [name for name, _ in calls_of(answer)] == called, choice


def json_mode_and_structured_output_give_json() -> None:
    for model in (REASONER, CHAT):
        question = "Who is it? Give me json with the keys 'name' and 'age'."
        answer = ask(question, model=model, response_format={"type": "json_object"})
        assert set(json.loads(answer.choices[0].message.content)) == {"name", "age"}
        answer = ask("Who is 'Ada', aged 36?", model=model, response_format=Person)
        content = answer.choices[0].message.content
        assert Person.model_validate_json(content) == Person(name="Ada", age=36)


def errors_carry_our_status_and_message() -> None:
    # LiteLLM takes every error for a bad request whose body has `invalid_request_error`, and
    # DeepSeek's `code` is that for all errors. The status tells them apart.
    guarded = {"api_base": GUARDED_URL}
    errors: tuple[tuple[Arguments, int, str], ...] = (
        ({"model": "deepseek/gpt-4o"}, 400, "Model Not Exist"),
        ({"temperature": 3}, 400, "Invalid temperature value"),
        ({"extra_body": {"thinking": {"type": "maybe"}}}, 422, "Failed to deserialize"),
        (guarded | {"api_key": "sk-unknown"}, 401, "nown is invalid"),
        (guarded | {"api_key": "sk-unpaid"}, 402, "Insufficient Balance"),
    )
    for more, status, message in errors:
        for streamed in (False, True):
            error = error_of("Hello", **more, stream=streamed)
            assert isinstance(error, litellm.BadRequestError), (type(error), error)
            assert error.status_code == status, error
            assert message in str(error)


def one_request_too_many_is_a_rate_limit_and_a_retry_succeeds() -> None:
    single = {"api_base": GUARDED_URL, "api_key": "sk-single"}
    chunks = stream("THINK 40 SAY: first", **single)
    next(chunks)
    error = error_of("Hello", **single)
    assert isinstance(error, litellm.RateLimitError), (type(error), error)
    assert error.status_code == 429
    assert "Rate limit reached" in str(error)
    router = litellm.Router(
        model_list=[{"model_name": "r1", "litellm_params": {"model": REASONER} | single}],
        num_retries=3,
    )
    second = router.completion("r1", user("SKIP SAY: second"))
    assert second.choices[0].message.content == "second"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "first"


def keep_alives_reset_the_read_timeout() -> None:
    patience = {"api_base": SLOW_URL, "timeout": httpx.Timeout(20, read=READ_S)}
    began = time.monotonic()
    whole = ask(f"litellm {SLOW} SAY: done", **patience)
    assert whole.choices[0].message.content == "done"
    assert time.monotonic() - began > 1.5 * READ_S
    began = time.monotonic()
    chunks = stream(f"litellm stream {SLOW} SAY: done", **patience)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "done"
    assert time.monotonic() - began > 1.5 * READ_S


def a_read_timeout_below_the_keep_alives_is_a_timeout() -> None:
    patience = {"api_base": SLOW_URL, "timeout": httpx.Timeout(20, read=0.05)}
    error = error_of(f"litellm timeout {SLOW}", **patience)
    assert isinstance(error, litellm.Timeout), (type(error), error)


def a_task_that_is_cancelled_frees_the_engine() -> None:
    async def read(*, streamed: bool) -> None:
        more = {"api_base": GUARDED_URL, "api_key": "sk-whole", "stream": streamed}
        answer = await litellm.acompletion(**arguments_of(LONG, more))
        async for _ in answer:
            pass

    async def leave(*, streamed: bool) -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(read(streamed=streamed))
            await asyncio.to_thread(until_running, 1)
            task.cancel()
        await asyncio.to_thread(until_running, 0)

    for streamed in (False, True):
        asyncio.run(leave(streamed=streamed))


CHECKS: tuple[Callable[[], None], ...] = (
    a_stream_is_reasoning_then_answer_with_the_usage_at_its_end,
    a_stream_for_asyncio_is_the_same,
    an_answer_in_one_piece_has_reasoning_beside_the_content,
    a_prompt_seen_before_is_reported_as_cached,
    thinking_is_switched,
    reasoning_that_is_sent_back_costs_nothing,
    a_beginning_is_continued_below_beta_and_refused_elsewhere,
    a_middle_is_filled_in_below_beta,
    tools_are_called_one_by_one_in_parallel_and_from_a_stream,
    the_results_of_tools_are_understood,
    the_choice_among_tools_is_kept,
    json_mode_and_structured_output_give_json,
    errors_carry_our_status_and_message,
    one_request_too_many_is_a_rate_limit_and_a_retry_succeeds,
    keep_alives_reset_the_read_timeout,
    a_read_timeout_below_the_keep_alives_is_a_timeout,
    a_task_that_is_cancelled_frees_the_engine,
)


# --- the runner --------------------------------------------------------------------------------


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def until_running(count: int) -> None:
    """Returns when the engines of the guarded server work on that many requests."""
    for _ in range(200):
        say("engine_running")  # who has started us writes the number
        running = int(sys.stdin.readline())
        if running == count:
            return
        time.sleep(0.025)
    raise AssertionError(f"{running} requests run")


def main() -> int:
    """The exit code."""
    litellm.suppress_debug_info = True
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            check()
        except Exception:  # noqa: BLE001  # a runner reports whatever a check raises
            failed += 1
            say(f"FAILED: {name}\n{traceback.format_exc()}")
        else:
            say(f"passed: {name}")
    say(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
