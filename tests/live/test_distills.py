"""Two distills side by side on real vLLM: dense models, each with its own pool and prefix cache."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from orchestrator.engines.tiny_checkpoint import CheckpointKind
from tests.live.local_stack import LocalStack, command, local_stack, stream

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(600)]

QWEN, LLAMA = "DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Llama-8B"
KINDS = {QWEN: CheckpointKind.QWEN2, LLAMA: CheckpointKind.LLAMA}
UNIT_TOKENS = 64  # in which the API counts prefix hits; a block has 32
QUESTION = "Which of these words has the most letters, and how can one be sure of it? " * 6
GREEDY = {"temperature": 0.0, "max_tokens": 24}


def test_dense_models_are_served_side_by_side_each_with_its_own_cache(tmp_path: Path) -> None:
    with local_stack(tmp_path, "--spec", spec(tmp_path)) as stack:
        first = {name: ask(stack, name) for name in KINDS}
        again = {name: ask(stack, name) for name in KINDS}
        assert len({message(body) for body in first.values()}) == 2
        for name in KINDS:
            assert message(first[name]) == message(again[name])
            assert hit(first[name]) == 0, "the other model's cache holds nothing for it"
            assert hit(again[name]) >= UNIT_TOKENS
            before, after = predicted(stack, name)[-2:]
            assert before == 0
            assert after // UNIT_TOKENS * UNIT_TOKENS == hit(again[name]), "KV events told of it"
        drilled = command("drill", "drop-kv-events", "--url", stack.url, "--model", LLAMA)
        drilled += ["--streams", "2", "--tokens", "24", "--report", str(tmp_path / "drill.html")]
        drilled += ["--before", "3", "--lasts", "3", "--after", "3"]
        drill = subprocess.run(drilled, capture_output=True, text=True, timeout=200, check=False)
        assert drill.returncode == 0, drill.stdout + drill.stderr
        assert "the KV events of 2 ranks get lost" in drill.stdout
        held = hit(ask(stack, LLAMA))
        assert predicted(stack, LLAMA)[-1] // UNIT_TOKENS * UNIT_TOKENS == held, "in step again"
        streamed = stream(stack.client(), QUESTION, sampling=GREEDY, model=LLAMA)
        assert streamed.reasoning + streamed.answer == message(first[LLAMA])


def spec(folder: Path) -> str:
    """The example of the two, with checkpoints of their architectures."""
    example = yaml.safe_load(Path("deploy/local/distills.yaml").read_text())
    for model in example["models"]:
        kind = KINDS[model["name"]]
        model["path"] = str(folder / kind)
        made = command("checkpoint", model["path"], "--kind", kind)
        subprocess.run(made, check=True, timeout=120)
    path = folder / "distills.yaml"
    path.write_text(yaml.safe_dump(example))
    return str(path)


def ask(stack: LocalStack, model: str) -> dict[str, object]:
    """The body of one greedy completion."""
    asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **GREEDY}
    answer = httpx.post(f"{stack.url}/chat/completions", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def message(body: dict[str, object]) -> str:
    """Thought and answer."""
    assert isinstance(body["choices"], list)
    said = body["choices"][0]["message"]
    return (said["reasoning_content"] or "") + (said["content"] or "")


def hit(body: dict[str, object]) -> int:
    """The prompt's tokens that came from the prefix cache."""
    assert isinstance(body["usage"], dict)
    return int(body["usage"]["prompt_cache_hit_tokens"])


def predicted(stack: LocalStack, model: str) -> list[int]:
    """What the router took for held when it chose, request after request."""
    lines = [
        json.loads(line)
        for path in stack.log_dir.glob("decisions-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    chosen = [line for line in lines if str(line.get("decision")).startswith(f"{model}-")]
    return [line["question"]["hit_tokens"].get(line["decision"], 0) for line in chosen]
