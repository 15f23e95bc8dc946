"""Fill in the middle, logprobs, and how requests end."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.spec import (
    ApiProfile,
    ApiSpec,
    GatewaySpec,
    HandoffSpec,
)
from tests.gateway_stack import until
from tests.scripted_gateway import (
    R1,
    R1_ALONE,
    V3,
    V3_ALONE,
    Json,
    Stack,
    error_of,
    events,
    one_loop,
    paced,
    stack,
)

# --- fill in the middle --------------------------------------------------------------------------


def fim(shared: Stack, **fields: object) -> Any:  # noqa: ANN401  # a coroutine
    asked = {"model": "deepseek-chat", "prompt": "SAY: a = 1"} | fields
    headers = {"authorization": "Bearer sk-ada"}
    return shared.running.http.post("/beta/completions", json=asked, headers=headers)


@one_loop
async def test_the_middle_is_filled_in_whole_and_streamed(
    shared: Stack, tokenizer: Tokenizer
) -> None:
    control = tokenizer.control
    prompt, suffix = "def f():", "print(f())"
    whole = (await fim(shared, prompt=prompt, suffix=suffix)).json()
    ids = shared.decoded.prompt_ids
    assert ids[:2].tolist() == [control.begin_of_sentence, control.fim_begin]
    assert ids[-1] == control.fim_end
    assert tokenizer.decode(ids[2 : ids.index(control.fim_hole or 0)]) == prompt
    assert tokenizer.decode(ids[ids.index(control.fim_hole or 0) + 1 : -1]) == suffix
    keys = ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert list(whole) == keys
    (choice,) = whole["choices"]
    assert list(choice) == ["text", "index", "logprobs", "finish_reason"]
    assert choice == choice | {"index": 0, "logprobs": None, "finish_reason": "stop"}
    assert choice["text"] == "\n    return result\n"
    assert whole["object"] == "text_completion"
    assert "completion_tokens_details" not in whole["usage"]
    answer = await fim(shared, prompt=prompt, suffix=suffix, stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = events(answer)
    assert all(list(chunk) == keys for chunk in chunks)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@one_loop
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
async def test_its_logprobs_are_parallel_lists_over_the_text(
    shared: Stack, stream: bool, echo: bool
) -> None:
    prompt = "Eins — zwei"
    answer = await fim(shared, prompt=prompt, echo=echo, logprobs=2, stream=stream)
    chunks = events(answer) if stream else [answer.json()]
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["text"] for choice in choices)
    assert text.startswith(prompt) is echo
    lists: dict[str, list[Any]] = {}
    for choice in choices:
        for name, values in (choice["logprobs"] or {}).items():
            lists.setdefault(name, []).extend(values)
    assert list(lists) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert "".join(lists["tokens"]) == text.removeprefix(prompt if echo else "")
    for offset, token in zip(lists["text_offset"], lists["tokens"], strict=True):
        assert text[offset:].startswith(token)
    assert {len(top) for top in lists["top_logprobs"]} == {2}


@one_loop
async def test_what_it_does_not_do_is_refused(shared: Stack) -> None:
    for name in ("deepseek-reasoner", R1):
        status, message = error_of(await fim(shared, model=name))
        assert (status, message) == (400, f"{name} does not support fill in the middle")
    assert error_of(await fim(shared, model="gpt")) == (400, "Model Not Exist")
    for fields, name in (
        ({"max_tokens": 4_097}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ):
        status, message = error_of(await fim(shared, **fields))
        assert status == 400
        assert name in message
    assert (await fim(shared, prompt=None)).status_code == 422


# --- logprobs ------------------------------------------------------------------------------------

SAID = "Ça va 🙂 — 好的, naïve 𓀀nicode\u2028end"


@one_loop
@pytest.mark.parametrize("stop", [None, "end", "zzz"])
async def test_logprobs_cover_the_content_token_by_token(
    shared: Stack, tokenizer: Tokenizer, stop: str | None
) -> None:
    fields: Json = {"model": "deepseek-chat", "logprobs": True, "top_logprobs": 3, "stop": stop}
    whole = (await shared.post(f"SAY: {SAID}", **fields)).json()["choices"][0]
    streamed = [
        event["choices"][0]
        for event in events(await shared.post(f"SAY: {SAID}", stream=True, **fields))
    ]
    content = whole["message"]["content"]
    assert content == SAID.removesuffix(stop or "")
    scored = whole["logprobs"]["content"]
    assert content == "".join(choice["delta"].get("content") or "" for choice in streamed)
    chunks = [choice for choice in streamed if choice["logprobs"]]
    assert scored == [token for choice in chunks for token in choice["logprobs"]["content"]]
    assert b"".join(bytes(token["bytes"]) for token in scored) == content.encode()
    assert len(scored) == len(tokenizer.encode(content))
    for token in scored:
        assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0]["bytes"] == token["bytes"]
    if stop is None:
        ahead = b""  # of the text: half a character of a token that has come
        for choice in chunks:  # otherwise each chunk has the tokens whose text it has
            data = b"".join(bytes(token["bytes"]) for token in choice["logprobs"]["content"])
            ahead = (ahead + data).removeprefix(choice["delta"]["content"].encode())
            assert len(ahead) < 4


@one_loop
async def test_a_tool_call_has_none_streamed_or_whole(shared: Stack) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    fields: Json = {"model": "deepseek-chat", "logprobs": True, "tools": [tool]}
    whole = (await shared.post("call f", **fields)).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["logprobs"] is None
    chunks = events(await shared.post("call f", stream=True, **fields))
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


@one_loop
async def test_the_reasoner_has_no_logprobs(shared: Stack) -> None:
    asked: list[Json] = [{"logprobs": True}, {"top_logprobs": 0}]
    for fields in asked:
        status, message = error_of(await shared.post(**fields))
        assert (status, message.partition("`")[0]) == (
            400,
            "deepseek-reasoner does not support the parameter ",
        )


# --- ends ----------------------------------------------------------------------------------------


@one_loop
async def test_at_launch_max_tokens_counted_the_answer_alone(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    api = ApiSpec(profile=ApiProfile.DEEPSEEK_2501)
    async with stack(tokenizer, tmp_path, R1_ALONE, api=api) as it:
        for stream in (False, True):
            answer = await it.post("THINK 40 LONG 50", max_tokens=5, stream=stream)
            last = events(answer)[-1] if stream else answer.json()
            assert last["choices"][0]["finish_reason"] == "length"
            usage = last["usage"]
            thought = usage["completion_tokens_details"]["reasoning_tokens"]
            assert thought >= 40
            assert 0 <= usage["completion_tokens"] - thought - 5 <= 1  # the tag that opens it
            if not stream:
                content = last["choices"][0]["message"]["content"]
                assert len(tokenizer.encode(f"\n\n{content}")) == 5
        sampling = it.decoded.sampling
        assert (sampling.max_tokens, sampling.thinking_budget) == (32_768 + 5, 32_768)
        await until(lambda: it.running_now() == 0)


@one_loop
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_after_keep_alives_is_a_well_formed_completion(
    tokenizer: Tokenizer, tmp_path: Path, stream: bool
) -> None:
    parts: Json = {
        "gateway": GatewaySpec(keep_alive_s=0.03),
        "handoff": HandoffSpec(resume_wait_s=0.1),
    }
    silent = paced(prefill_s_per_token=0.02)
    async with stack(tokenizer, tmp_path, V3_ALONE, silent, **parts) as it:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                it.post("LONG 900 " + "word " * 30, model="deepseek-chat", stream=stream)
            )
            await until(lambda: it.running_now() == 1)
            await asyncio.sleep(0.2)
            it.running.ranks[f"{V3}-unified-0"].server.close("the test kills it")
        answer = asked.result()
        assert answer.status_code == 200
        assert answer.text.startswith(": keep-alive\n\n" if stream else "\n")
        last = events(answer)[-1] if stream else answer.json()
        assert last["choices"][0]["finish_reason"] == "insufficient_system_resource"
        assert last["usage"]["completion_tokens"] == 0
        assert last["choices"][0]["delta" if stream else "message"]["content"] == ""


async def kill_busy(it: Stack) -> None:
    for name, rank in it.running.ranks.items():
        if "prefill" not in name and rank.engine.load().running:
            rank.server.close("the test kills it")


@one_loop
async def test_an_answer_that_a_grammar_holds_is_not_continued_elsewhere_but_its_thought_is(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    wanted = {"type": "json_object"}
    question = "THINK 9 json: one two three four five six seven eight nine ten eleven twelve"
    parts: Json = {"handoff": HandoffSpec(resume_wait_s=0.3)}
    pace = paced(step_s=0.015)
    for part in ("reasoning_content", "content"):
        logs = tmp_path / part
        logs.mkdir()
        async with stack(tokenizer, logs, R1_ALONE, pace, spare=True, **parts) as it:
            undisturbed = await it.post(question, response_format=wanted)
            message = undisturbed.json()["choices"][0]["message"]
            texts = {"reasoning_content": "", "content": ""}
            finish, killed = "", False
            async with it.stream(question, response_format=wanted) as lines:
                async for line in lines:
                    if not line.startswith("data: {"):
                        continue
                    choice = json.loads(line[6:])["choices"][0]
                    for name in texts:
                        texts[name] += choice["delta"].get(name) or ""
                    finish = choice["finish_reason"] or finish
                    if texts[part] and not killed:
                        killed = True
                        await kill_busy(it)
            assert killed
            if part == "content":
                assert finish == "insufficient_system_resource"
                assert message["content"].startswith(texts["content"])
                assert texts["content"] != message["content"]
            else:
                assert finish == "stop"
                assert texts == {name: message[name] for name in texts}
                assert json.loads(texts["content"])
                resumed = f'r1_requests_resumed_total{{model="{R1}"}} 1.0'
                assert resumed in await it.metrics()


@one_loop
async def test_json_that_is_none_is_counted(shared: Stack) -> None:
    counter = f'r1_invalid_json_total{{model="{V3}"}}'
    fields: Json = {"model": "deepseek-chat", "response_format": {"type": "json_object"}}
    answer = await shared.post("json: 3", **fields)
    json.loads(answer.json()["choices"][0]["message"]["content"])
    cut = await shared.post('json RAW: {"a": 1', max_tokens=2, **fields)
    assert cut.json()["choices"][0]["finish_reason"] == "length"
    assert counter not in await shared.metrics(), "what is cut off is nobody's fault"
    await shared.post('json RAW: {"a": 1', **fields)
    assert f"{counter} 1.0" in await shared.metrics()


@one_loop
async def test_nothing_is_left_behind(shared: Stack) -> None:
    """After all the tests above: no slot held, no passage open."""
    await until(lambda: shared.running_now() == 0)
    metrics = await shared.metrics()
    for name in (R1, V3):
        assert f'r1_requests_in_flight{{model="{name}"}} 0.0' in metrics
        assert f'r1_requests_queued{{model="{name}"}} 0.0' in metrics
        served = shared.running.models.served(shared.running.models.spec.model(name))
        assert not served.service._passages
