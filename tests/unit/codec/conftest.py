"""R1's real vocabulary, and its published chat template, for every test of the codec."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import pytest
import tokenizers

from orchestrator.codec import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tokenizer,
    ToolMessage,
    UserMessage,
)

Render = Callable[[Sequence[Message]], str]


@pytest.fixture(scope="session")
def published(tokenizer_dir: Path) -> tokenizers.Tokenizer:
    """R1's tokenizer.json as the tokenizers library reads it, control tokens and all."""
    return tokenizers.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))


# Functions, since the tokenizer's own text in a failure report is all of its vocabulary.


@pytest.fixture(scope="session")
def published_encode(published: tokenizers.Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: published.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="session")
def published_decode(published: tokenizers.Tokenizer) -> Callable[[Sequence[int], bool], str]:
    return lambda ids, skip_special: published.decode(list(ids), skip_special_tokens=skip_special)


@pytest.fixture(scope="session")
def published_prompt(tokenizer_dir: Path) -> Render:
    """The prompt's text after the published template, as far as that goes."""
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    template = jinja2.Environment().from_string(config["chat_template"])

    def render(messages: Sequence[Message]) -> str:
        return template.render(
            messages=[as_json(message) for message in messages],
            bos_token=config["bos_token"]["content"],
            add_generation_prompt=True,
        )

    return render


def as_json(message: Message) -> dict[str, object]:
    """A message as templates get it; `content` is null beside tool calls if there is no text."""
    match message:
        case AssistantMessage(content, calls) if calls:
            return {
                "role": "assistant",
                "content": content or None,
                "tool_calls": [
                    {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                    for c in calls
                ],
            }
        case AssistantMessage(content):
            return {"role": "assistant", "content": content}
        case SystemMessage(content):
            return {"role": "system", "content": content}
        case ToolMessage(content):
            return {"role": "tool", "content": content}
        case UserMessage(content):
            return {"role": "user", "content": content}


@pytest.fixture(scope="session")
def distill_tokenizer(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """R1's vocabulary without the marks that the distilled models' vocabularies lack."""
    file = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    file["added_tokens"] = [
        token
        for token in file["added_tokens"]
        if "tool" not in token["content"] and "fim" not in token["content"]
    ]
    path = tmp_path_factory.mktemp("distill")
    (path / "tokenizer.json").write_text(json.dumps(file))
    return Tokenizer.load(path)
