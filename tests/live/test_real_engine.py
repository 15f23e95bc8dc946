"""Real vLLM on the CPU under the real Ray Serve stack, driven by the official client."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.live.local_stack import (
    Asker,
    Completion,
    LocalStack,
    end_of,
    local_stack,
    printed_gib,
    printed_seconds,
    stream,
    until,
)

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(600)]

QUESTION = "Tom has 29 apples and gets 35 more. How many apples does Tom have now?"
BEST = {"temperature": 0.0}
BACK_S = 240.0


def test_make_up_thinks_across_nodes_and_survives_the_death_of_its_decode_gang(
    tmp_path: Path,
) -> None:
    with local_stack(tmp_path) as stack:
        assert printed_seconds(stack.said) > 0
        assert printed_gib(stack.said) > 0
        answer = stream(stack.client(), QUESTION, sampling=BEST)
        assert answer.finish == "stop"
        assert "That makes 6 4, so 64." in answer.reasoning
        assert answer.answer == "Tom has 64 apples."
        sum_asked = stream(stack.client(), "What is 17 + 25?", sampling=BEST)
        assert sum_asked.answer == "17 + 25 = 42."
        check_transfer(stack)
        check_whole_body(stack, answer)
        check_json(stack)
        check_grammars(stack)
        check_death_of_decode(stack, answer)


def check_transfer(stack: LocalStack) -> None:
    """The KV of the prompt came from the prefill gang: the decision log and vLLM agree."""
    logs = "".join(path.read_text() for path in stack.log_dir.glob("decisions-*.jsonl"))
    assert '"decision":"transfer"' in logs
    assert '"decision":"DeepSeek-R1-prefill-' in logs
    assert '"decision":"DeepSeek-R1-decode-' in logs
    assert len(stack.engine_pids("prefill", node=1)) == 1, "the prefill gang spans two nodes"
    seen = set[str]()  # of both gateways, as HAProxy gives them to us

    def moved() -> bool:
        text = httpx.get(f"{stack.url}/metrics", timeout=30).text
        seen.update(re.findall(r'r1_transfers_total{.*outcome="(\w+)"', text))
        return bool(seen)

    until(moved, 30)
    assert seen == {"moved"}


def check_whole_body(stack: LocalStack, recital: Completion) -> None:
    """The body says what the stream said."""
    whole = stack.client().chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}], temperature=0.0
    )
    message = whole.choices[0].message
    assert message.content == recital.answer
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == recital.reasoning
    assert whole.usage is not None
    assert whole.usage.completion_tokens == recital.output_tokens


def check_json(stack: LocalStack) -> None:
    """It was trained to answer in JSON when it is asked to."""
    answer = stack.client().chat.completions.create(
        model="deepseek-reasoner",
        messages=[{"role": "user", "content": "What is 29 + 35? Answer in JSON."}],
        temperature=0.0,
    )
    assert json.loads(answer.choices[0].message.content or "") == {"answer": 64}


def check_grammars(stack: LocalStack) -> None:
    """A schema and a demanded call hold even weights that never saw either, behind a transfer."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Bonn", "Köln"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    asked = [{"role": "user", "content": QUESTION}]
    body = {
        "model": "deepseek-reasoner",
        "messages": asked,
        "thinking": {"type": "disabled"},
        "max_tokens": 1000,
    }
    client = stack.client().with_options(max_retries=0)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = client.post("/chat/completions", body=body | {"response_format": form}, cast_to=object)
    assert set(json.loads(message_of(answer)["content"])) == {"city", "sure"}
    tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    tools = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
    answer = client.post("/chat/completions", body=body | tools, cast_to=object)
    [call] = message_of(answer)["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city", "sure"}
    broken = {"type": "json_schema", "json_schema": {"schema": {"type": "array", "contains": {}}}}
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.post("/chat/completions", body=body | {"response_format": broken}, cast_to=object)


def message_of(completion: object) -> dict[str, Any]:
    """The message of a body."""
    assert isinstance(completion, dict)
    message: dict[str, Any] = completion["choices"][0]["message"]
    return message


def check_death_of_decode(stack: LocalStack, recital: Completion) -> None:
    """Streams that a kill interrupts are finished by the gang's successor, word for word."""
    askers = [Asker(stack.client(timeout_s=400), QUESTION, sampling=BEST) for _ in range(4)]
    for asker in askers:
        asker.start()
    until(lambda: all(len(asker.heard) > 3 for asker in askers), 60)
    [pid] = stack.engine_pids("decode")
    os.kill(pid, signal.SIGKILL)
    end_of(askers, BACK_S)
    for asker in askers:
        assert asker.completion is not None, asker.error
        assert asker.completion.reasoning == recital.reasoning
        assert asker.completion == recital
    until(lambda: stack.ranks() == {"prefill": 1, "decode": 1}, BACK_S)
    assert stack.engine_pids("decode") not in ([], [pid])
