"""Real vLLM on the CPU under the real Ray Serve stack, driven by the official client."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.live.local_stack import (
    Asker,
    Completion,
    LocalStack,
    command,
    end_of,
    local_stack,
    printed_gib,
    printed_seconds,
    stream,
    until,
)

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(600)]

QUESTION = "What happens to a thought when the machine that thinks it is switched off?"
BACK_S = 240.0
LAYOUTS_START_S = 900.0  # some ten processes that load vLLM, on two cores
GREEDY = {"temperature": 0.0, "max_tokens": 48}
ONE_RANK = "unified"
# Each of deploy/local under another name, so that one stack serves them all, and under one whose
# prompts are the others' too: the distills share a template.
LAYOUTS = {
    ONE_RANK: "DeepSeek-R1-Distill-Qwen-1.5B",
    "tp2": "DeepSeek-R1-Distill-Qwen-7B",
    "ep2": "DeepSeek-R1-Distill-Llama-8B",
    "pp2": "DeepSeek-R1-Distill-Qwen-14B",
    "p1d1": "DeepSeek-R1-Distill-Qwen-32B",
}


def test_make_up_recites_across_nodes_and_survives_the_death_of_its_decode_gang(
    tmp_path: Path,
) -> None:
    with local_stack(tmp_path) as stack:
        assert printed_seconds(stack.said) > 0
        assert printed_gib(stack.said) > 0
        recital = stream(stack.client(), QUESTION)
        assert recital.finish == "stop"
        assert "recite" in recital.reasoning
        assert "recitation" in recital.answer
        check_transfer(stack)
        check_whole_body(stack, recital)
        check_grammars(stack)
        check_death_of_decode(stack, recital)


def check_transfer(stack: LocalStack) -> None:
    """The KV of the prompt came from the prefill gang: the decision log and vLLM agree."""
    logs = "".join(path.read_text() for path in stack.log_dir.glob("decisions-*.jsonl"))
    assert '"decision":"transfer"' in logs
    assert '"decision":"DeepSeek-R1-prefill-' in logs
    assert '"decision":"DeepSeek-R1-decode-' in logs
    assert len(stack.engine_pids("prefill", node=1)) == 1, "the prefill gang spans two nodes"


def check_whole_body(stack: LocalStack, recital: Completion) -> None:
    """The body says what the stream said."""
    whole = stack.client().chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}]
    )
    message = whole.choices[0].message
    assert message.content == recital.answer
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == recital.reasoning
    assert whole.usage is not None
    assert whole.usage.completion_tokens == recital.output_tokens


def check_grammars(stack: LocalStack) -> None:
    """A schema and a demanded call hold even weights that can only recite, behind a transfer."""
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
    askers = [Asker(stack.client(timeout_s=400), QUESTION) for _ in range(4)]
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


@pytest.fixture(scope="module")
def every_layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The same seeded random weights in every layout, side by side."""
    folder = tmp_path_factory.mktemp("layouts")
    checkpoint = folder / "tiny-random"
    made = command("checkpoint", str(checkpoint), "--kind", "random")
    subprocess.run(made, check=True, timeout=120)
    models = []
    for layout, name in LAYOUTS.items():
        example = yaml.safe_load(Path(f"deploy/local/{layout}.yaml").read_text())
        [model] = example["models"]
        model |= {"name": name, "path": str(checkpoint)}
        model["engine"]["start_timeout_s"] = LAYOUTS_START_S
        models.append(model)
    spec = folder / "layouts.yaml"
    spec.write_text(yaml.safe_dump(example | {"models": models}))  # the last has nodes for all
    with local_stack(folder, "--spec", str(spec), start_s=LAYOUTS_START_S) as stack:
        yield stack


@pytest.fixture(scope="module")
def greedy_on_one_rank(every_layout: LocalStack) -> list[Completion]:
    """What every layout must give, which differs from prompt to prompt."""
    outputs = greedy_outputs(every_layout, ONE_RANK)
    assert len({completion.reasoning for completion in outputs}) == len(outputs)
    return outputs


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != ONE_RANK])
def test_greedy_output_is_that_of_one_rank(
    layout: str, greedy_on_one_rank: list[Completion], every_layout: LocalStack
) -> None:
    """Tensor parallel, expert parallel, in two stages on two nodes, and with prefill and decode
    apart.
    """
    assert greedy_outputs(every_layout, layout) == greedy_on_one_rank


def greedy_outputs(stack: LocalStack, layout: str) -> list[Completion]:
    """Three prompts' greedy outputs."""
    client = stack.client()
    outputs = [
        stream(client, question, sampling=GREEDY, model=LAYOUTS[layout])
        for question in (QUESTION, "Hi", "数学题：1+1=？")
    ]
    assert all(completion.output_tokens == GREEDY["max_tokens"] for completion in outputs)
    return outputs
