"""Prompts whose tokens and beginnings are as asked, in R1's own vocabulary."""

import json

import pytest

from loadtest.prompts import Prompter, words
from orchestrator.codec import Conversation, Tokenizer, UserMessage, render
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.spec import SystemPrompt, TemplateKind
from orchestrator.workload import TraceRequest

OVERHEAD = 5  # of R1's template: begin, user, assistant, begin of thought, line


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(published_tokenizer())


def ids_of(tokenizer: Tokenizer, body: bytes) -> list[int]:
    """What the server's model reads."""
    content = json.loads(body)["messages"][0]["content"]
    prompt = render(
        tokenizer,
        TemplateKind.R1,
        Conversation((UserMessage(content),)),
        system_prompt=SystemPrompt.FOLD,
        force_think=True,
    )
    return list(prompt.ids)


def test_each_word_is_one_token_in_any_company(tokenizer: Tokenizer) -> None:
    listed = words()
    assert len(set(listed)) == len(listed) == 4096
    for word in listed:
        assert len(tokenizer.encode(word.decode())) == 1, word
    text = b"".join(listed).decode()
    assert len(tokenizer.encode(text)) == len(listed)


@pytest.mark.parametrize("tokens", [8, 511, 512, 513, 1_024, 3_000])
@pytest.mark.parametrize("hashed", [True, False])
def test_a_prompt_has_the_tokens_that_are_asked(
    tokenizer: Tokenizer, tokens: int, hashed: bool
) -> None:
    prompter = Prompter("m", "salt", OVERHEAD)
    ids = tuple(range(-(-tokens // 512))) if hashed else ()
    body = prompter.body(TraceRequest(0.0, tokens, 7, ids), "1")
    assert len(ids_of(tokenizer, body)) == tokens
    assert json.loads(body)["max_tokens"] == 7


def test_equal_hash_ids_are_an_equal_beginning_and_nothing_else_is(tokenizer: Tokenizer) -> None:
    prompter, again = Prompter("m", "salt", OVERHEAD), Prompter("m", "salt", OVERHEAD)
    first = ids_of(tokenizer, prompter.body(TraceRequest(0, 2_000, 1, (7, 8, 9, 10)), "0"))
    second = ids_of(tokenizer, again.body(TraceRequest(0, 2_000, 1, (7, 8, 11, 12)), "1"))
    same = next(at for at, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    assert 1_024 <= same < 1_024 + 8  # the template's begin of a prompt is before them


def test_prompts_without_hash_ids_share_no_beginning(tokenizer: Tokenizer) -> None:
    prompter = Prompter("m", "salt")
    starts = {prompter.text(TraceRequest(0, 600, 1), str(number))[:40] for number in range(300)}
    assert len(starts) == 300


def test_another_salt_is_another_text() -> None:
    request = TraceRequest(0, 600, 1, (1, 2))
    assert Prompter("m", "a").text(request, "0")[:60] != Prompter("m", "b").text(request, "0")[:60]
