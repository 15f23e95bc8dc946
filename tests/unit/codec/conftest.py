"""R1's real vocabulary, and its published chat template, for every test of the codec."""

import json
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
import tokenizers

from orchestrator.codec import AssistantMessage, Message, SystemMessage, UserMessage

Render = Callable[[list[Message]], str]


@pytest.fixture(scope="session")
def published(tokenizer_dir: Path) -> tokenizers.Tokenizer:
    """R1's tokenizer.json as the tokenizers library reads it, control tokens and all."""
    return tokenizers.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))


# Functions, since the tokenizer's own text in a failure report is all of its vocabulary.


@pytest.fixture(scope="session")
def published_encode(published: tokenizers.Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: published.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="session")
def published_decode(published: tokenizers.Tokenizer) -> Callable[[list[int], bool], str]:
    return lambda ids, skip_special: published.decode(ids, skip_special_tokens=skip_special)


@pytest.fixture(scope="session")
def published_prompt(tokenizer_dir: Path) -> Render:
    """The prompt's text after the published template, and the reasoning that R1's opens."""
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    template = jinja2.Environment().from_string(config["chat_template"])
    roles = {SystemMessage: "system", UserMessage: "user", AssistantMessage: "assistant"}

    def render(messages: list[Message]) -> str:
        text = template.render(
            messages=[{"role": roles[type(m)], "content": m.content} for m in messages],
            bos_token=config["bos_token"]["content"],
            add_generation_prompt=True,
        )
        return f"{text}<think>\n"  # what the packaged copy of the template lacks

    return render
