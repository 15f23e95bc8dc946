"""No word of a prompt or of an answer is in a log, a metric, a span or an operator's answer."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import token_ids
from orchestrator.engines import FakeEngineSpec
from orchestrator.spec import HandoffSpec, TracingSpec, WhySpec
from tests.gateway_stack import until
from tests.scripted_gateway import BOTH, FAST, PATH, Json, KeptSpans, Stack, body, stack

MARK = "zyxwmarkerqvk"
ANTHROPIC = "/anthropic/v1/messages"
BETA = "/beta/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": f"{MARK}_tool",
        "description": f"{MARK} does",
        "parameters": {
            "type": "object",
            "properties": {f"{MARK}_field": {"type": "string", "description": MARK}},
        },
    },
}
CHAT = "deepseek-chat"


def requests() -> list[tuple[str, Json | bytes]]:
    """Every endpoint, whole and streamed, with what is right and what is wrong."""
    said = f"Say {MARK}, please, and {MARK} again"
    history = [
        {"role": "system", "content": f"You are {MARK}"},
        {"role": "user", "content": said},
        {"role": "assistant", "content": f"{MARK}!", "reasoning_content": MARK},
        {"role": "user", "content": f"{MARK} once more"},
    ]
    schema = {"type": "json_object"}
    good: list[tuple[str, Json]] = [
        (PATH, body(said)),
        (f"/v1{PATH}", body(said, stream=True)),
        (f"/beta{PATH}", body(said, messages=history)),
        (PATH, body(said, stop=[MARK], max_tokens=40)),
        (PATH, body(said, logprobs=True, top_logprobs=2, model=CHAT)),
        (PATH, body(f"json: {said}", response_format=schema)),
        (PATH, body(said, model=CHAT, tools=[TOOL])),
        (PATH, body(said, model=CHAT, tools=[TOOL], tool_choice="required", stream=True)),
        (
            f"/beta{PATH}",
            body(
                said,
                model=CHAT,
                messages=[*history, {"role": "assistant", "content": MARK, "prefix": True}],
            ),
        ),
        (BETA, {"model": CHAT, "prompt": f"def {MARK}(", "suffix": f"return {MARK}"}),
        (BETA, {"model": CHAT, "prompt": f"def {MARK}(", "stream": True}),
        (ANTHROPIC, {"model": CHAT, "max_tokens": 30, "messages": history[1:2]}),
        (
            ANTHROPIC,
            {"model": CHAT, "max_tokens": 30, "system": MARK, "messages": history[1:2]}
            | {"stream": True},
        ),
        (f"{ANTHROPIC}/count_tokens", {"model": CHAT, "messages": history[1:2]}),
    ]
    wrong: list[tuple[str, Json | bytes]] = [
        (PATH, f'{{"model": "{MARK}", '.encode()),
        (PATH, body(said, model=MARK)),
        (PATH, body(said, temperature=MARK)),
        (PATH, body(said, user_id=f"{MARK} !")),
        (PATH, body(said, messages=[{"role": MARK, "content": said}])),
        (PATH, body(said, response_format={"type": MARK})),
        (PATH, body(said, messages=[{"role": "user", "content": f"{MARK} " * 150_000}])),
        (PATH, body(said, model=CHAT, tools=[TOOL | {"type": MARK}])),
        (PATH, body(said, model=CHAT, tools=[TOOL], tool_choice={"type": MARK})),
        (
            PATH,
            body(
                said,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": MARK, "schema": {"type": MARK}},
                },
            ),
        ),
        (BETA, {"model": CHAT, "prompt": [MARK]}),
        (ANTHROPIC, {"model": CHAT, "max_tokens": MARK, "messages": history[1:2]}),
    ]
    return [*good, *wrong]


async def ask(client: httpx.AsyncClient, path: str, asked: Json | bytes) -> None:
    """One request, whatever becomes of it."""
    headers = {"authorization": "Bearer sk-ada", "x-api-key": "sk-ada"}
    content = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    async with client.stream("POST", path, content=content, headers=headers) as answer:
        async for _ in answer.aiter_raw():
            pass


async def leave(client: httpx.AsyncClient, path: str, asked: Json) -> None:
    """A client that goes after the first bytes."""
    headers = {"authorization": "Bearer sk-ada"}
    async with client.stream("POST", path, json=asked, headers=headers) as answer:
        async for _ in answer.aiter_raw():
            break


def traces_of(tokenizer: Tokenizer) -> list[str]:
    """The marker as it might be written: as text, and as ids of it."""
    ids = list(tokenizer.encode(f" {MARK}"))
    assert len(ids) > 3, "it takes some ids, which nothing else has in a row"
    middle = [str(id_) for id_ in ids[1:-1]]
    packed = bytes(token_ids(ids[1:-1])).hex()
    return [MARK, MARK.upper(), ", ".join(middle), ",".join(middle), packed]


def written(logs: Path) -> list[tuple[str, str]]:
    """All files below."""
    files = sorted(file for file in logs.rglob("*") if file.is_file())
    return [(file.name, file.read_text(errors="replace")) for file in files]


async def seen(running: Stack, kept: KeptSpans, logs: Path) -> AsyncIterator[tuple[str, str]]:
    """Everything that was said of the requests, by where."""
    for place in written(logs):
        yield place
    yield "metrics", await running.metrics()
    yield "spans", repr(kept.spans)
    http = running.running.http
    for name in {submit.trace_id for submit in running.submits}:
        answer = await http.get(f"/operator/why/{name}")
        assert answer.status_code == 200, answer.text
        yield f"why {name}", answer.text
    answer = await http.post("/operator/doctor")
    yield "doctor", answer.text
    yield "doctor's metrics", await running.metrics()


@pytest.mark.parametrize(
    "pace", [FAST, FakeEngineSpec(step_s=0.0, prefill_s_per_token=0.0, fail_requests=0.6)]
)
async def test_what_is_asked_and_answered_is_nowhere_but_on_its_way(
    tokenizer: Tokenizer,
    tmp_path: Path,
    pace: FakeEngineSpec,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    async with stack(
        tokenizer,
        logs,
        BOTH,
        pace,
        why=WhySpec(requests_max=1_000),
        tracing=TracingSpec(share=1.0),
        handoff=HandoffSpec(attempts_max=2, retry_pause_s=0.0),
    ) as running:
        kept = KeptSpans()
        running.running.models.trace_to(kept)
        http = running.running.http
        for path, asked in requests():
            await ask(http, path, asked)
        await leave(http, PATH, body(f"{MARK} for long " * 50, stream=True))
        models = running.running.models
        services = [models.served(model).service for model in models.spec.models]
        await until(lambda: not any(service.held for service in services))
        reached = sum(MARK in tokenizer.decode(s.prompt_ids.tolist()) for s in running.submits)
        assert reached >= 10, "engines were to have it"
        assert {span.name for span in kept.spans} >= {"request", "admission", "prefill", "decode"}
        places = [place async for place in seen(running, kept, logs)]
        assert {"log", "decisions"} <= {where for where, _ in places}
        for where, text in places:
            lines = text.splitlines() if where in ("log", "decisions") else []
            assert all({"time", "event", "source", "level"} <= set(json.loads(x)) for x in lines)
    out, err = capfd.readouterr()
    for where, text in [*places, ("stdout", out), ("stderr", err)]:
        for trace in traces_of(tokenizer):
            assert trace not in text, f"{trace!r} is in {where}: {context(text, trace)}"


async def test_the_marker_would_have_been_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = list(tokenizer.encode(f"ask {MARK} now"))
    written = json.dumps({"prompt": ids})
    assert any(trace in written for trace in traces_of(tokenizer))


def context(text: str, word: str) -> str:
    """Where it stands."""
    at = text.index(word)
    return text[max(0, at - 200) : at + 200]
