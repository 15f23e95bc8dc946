import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Message,
    SystemMessage,
    SystemPrompt,
    Tokenizer,
    UserMessage,
    render_r1,
)
from orchestrator.codec.tokenizer import CONTROL_NAMES

Render = Callable[[list[Message]], str]

# Hypothesis draws strings that it finds in our source, and the names of control tokens are there.
plain = st.text(max_size=20).filter(lambda text: not re.search(r"<[|｜]|think>", text))
hostile = st.lists(st.sampled_from([*CONTROL_NAMES.values()]) | plain, max_size=4).map("".join)


def conversations(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[Message]]:
    return st.lists(
        st.one_of(
            st.builds(SystemMessage, text),
            st.builds(UserMessage, text),
            st.builds(AssistantMessage, text),
        ),
        max_size=6,
    )


def shown(tokenizer: Tokenizer, ids: tuple[int, ...]) -> str:
    """The prompt's text with the two special tokens, which `decode` leaves out."""
    special = {
        tokenizer.control.begin_of_sentence: "<BOS>",
        tokenizer.control.end_of_sentence: "<EOS>",
    }
    return "".join(special.get(id_) or tokenizer.decode([id_]) for id_ in ids)


@given(messages=conversations(plain))
def test_the_kept_form_has_the_ids_of_the_published_template(
    tokenizer: Tokenizer,
    published_encode: Callable[[str], list[int]],
    published_prompt: Render,
    messages: list[Message],
) -> None:
    prompt = render_r1(tokenizer, messages, SystemPrompt.KEEP)
    text = published_prompt(messages)
    assert list(prompt.ids) == published_encode(text)


@given(messages=conversations(hostile))
def test_the_kept_form_has_the_text_of_the_published_template_whatever_is_typed(
    tokenizer: Tokenizer,
    published_decode: Callable[[list[int], bool], str],
    published_prompt: Render,
    messages: list[Message],
) -> None:
    prompt = render_r1(tokenizer, messages, SystemPrompt.KEEP)
    text = published_decode(list(prompt.ids), False)
    assert text == published_prompt(messages)


@given(messages=conversations(hostile), system_prompt=st.sampled_from(SystemPrompt))
def test_only_turns_put_control_tokens_into_a_prompt(
    tokenizer: Tokenizer, messages: list[Message], system_prompt: SystemPrompt
) -> None:
    control = tokenizer.control
    ids = render_r1(tokenizer, messages, system_prompt).ids
    users = sum(isinstance(m, UserMessage) for m in messages)
    answers = sum(isinstance(m, AssistantMessage) for m in messages)
    system = any(isinstance(m, SystemMessage) for m in messages)

    assert ids[0] == control.begin_of_sentence
    assert ids[-3:] == (control.assistant, control.think, 201)
    assert ids.count(control.begin_of_sentence) == 1
    assert ids.count(control.think) == 1
    assert ids.count(control.end_think) == 0
    assert ids.count(control.end_of_sentence) == answers
    assert ids.count(control.assistant) == answers + 1
    assert users <= ids.count(control.user) <= users + (system and not users)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([UserMessage("Q1")], "<BOS><｜User｜>Q1"),
        ([SystemMessage("S"), UserMessage("Q1")], "<BOS><｜User｜>S\n\nQ1"),
        ([SystemMessage(""), UserMessage("Q1")], "<BOS><｜User｜>Q1"),
        ([SystemMessage("S")], "<BOS><｜User｜>S"),
        (
            [UserMessage("Q1"), AssistantMessage("A1"), SystemMessage("S"), UserMessage("Q2")],
            "<BOS><｜User｜>S\n\nQ1<｜Assistant｜>A1<EOS><｜User｜>Q2",
        ),
        (
            [SystemMessage("S"), SystemMessage("T"), UserMessage("Q1"), UserMessage("Q2")],
            "<BOS><｜User｜>S\n\nT\n\nQ1<｜User｜>Q2",
        ),
        (
            [UserMessage("Q1"), AssistantMessage("<think>\nso\n</think>\n\nA1"), UserMessage("Q2")],
            "<BOS><｜User｜>Q1<｜Assistant｜>\n\nA1<EOS><｜User｜>Q2",
        ),
    ],
)
def test_folds_the_system_prompt_into_the_first_turn_and_drops_old_reasoning(
    tokenizer: Tokenizer, messages: list[Message], text: str
) -> None:
    prompt = render_r1(tokenizer, messages)
    assert shown(tokenizer, prompt.ids) == f"{text}<｜Assistant｜><think>\n"
    assert prompt.thinking
