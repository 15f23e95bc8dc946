"""Prompts: the one place where a conversation becomes the ids that a model reads.

A rendered text exists only as ids: what anybody wrote is encoded as ordinary text, and control
tokens come from the templates alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from orchestrator.codec.messages import Conversation, Prefix
from orchestrator.codec.templates import STYLES, Part, instructions, turns, zero_turns
from orchestrator.codec.tokenizer import Mark, Tokenizer
from orchestrator.core import TokenIds, token_ids
from orchestrator.spec import SystemPrompt, TemplateKind


class Begin(StrEnum):
    """What the model's first generated id belongs to."""

    THOUGHT = "thought"  # the prompt has just opened the reasoning
    THOUGHT_ON = "thought_on"  # the prompt ends inside reasoning text: newlines go on with it
    EITHER = "either"  # the model may open the reasoning itself
    ANSWER = "answer"
    ANSWER_ON = "answer_on"  # the prompt ends inside the answer's text: newlines go on with it


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets, with exactly one begin of sentence, and where it leaves the model."""

    ids: TokenIds
    begin: Begin


def render(
    tokenizer: Tokenizer,
    template: TemplateKind,
    conversation: Conversation,
    *,
    system_prompt: SystemPrompt,
    force_think: bool,
) -> Prompt:
    """The prompt for the next answer in a conversation.

    System messages, wherever they stand, are joined by blank lines, and the definitions of tools
    follow them. Of an earlier answer only what follows its last `</think>` is kept. A prefix and
    `suppress_thinking` say how the answer begins, whatever `force_think` is. Takes as long as
    `Tokenizer.encode` does, most of it without the interpreter's lock.
    """
    begin = _begin(template, conversation, force_think=force_think)
    head = instructions(conversation)
    if template is TemplateKind.R1_ZERO:
        text = zero_turns(conversation.messages, "".join(head), system_prompt)
        return _prompt(tokenizer, (text, _zero_opening(conversation.prefix, begin)), begin)
    body = turns(STYLES[template], conversation.messages, head, system_prompt)
    if template is TemplateKind.V3_0324:
        opening: tuple[Part, ...] = (_content(conversation.prefix),)
    else:
        opening = _opening(conversation.prefix, begin)
    return _prompt(tokenizer, (*body, *opening), begin)


def render_fim(tokenizer: Tokenizer, prompt: str, suffix: str) -> Prompt:
    """The prompt for what stands between `prompt` and `suffix`; the tokenizer must have `has_fim`.

    The order is prefix, suffix, middle, as DeepSeek-V3 was trained: section 2.1 of its report,
    https://arxiv.org/abs/2412.19437, under Data Construction.
    """
    assert tokenizer.has_fim
    parts = (Mark.FIM_BEGIN, prompt, Mark.FIM_HOLE, suffix, Mark.FIM_END)
    return _prompt(tokenizer, parts, Begin.ANSWER_ON)


def _prompt(tokenizer: Tokenizer, parts: Iterable[Part], begin: Begin) -> Prompt:
    ids = tokenizer.assemble((Mark.BEGIN_OF_SENTENCE, *parts))
    assert ids.count(tokenizer.control.begin_of_sentence) == 1
    return Prompt(token_ids(ids), begin)


def _begin(template: TemplateKind, conversation: Conversation, *, force_think: bool) -> Begin:
    prefix = conversation.prefix
    if template is TemplateKind.V3_0324:
        return Begin.ANSWER_ON if prefix and prefix.content else Begin.ANSWER
    if prefix and prefix.content:
        return Begin.ANSWER_ON
    if conversation.suppress_thinking or (prefix and prefix.content is not None):
        return Begin.ANSWER
    if prefix:
        return Begin.THOUGHT_ON if prefix.reasoning else Begin.THOUGHT
    return Begin.THOUGHT if force_think else Begin.EITHER


def _opening(prefix: Prefix | None, begin: Begin) -> tuple[Part, ...]:
    """What the prompt writes of a reasoning model's answer."""
    reasoning = _reasoning(prefix)
    match begin:
        case Begin.EITHER:
            return ()
        case Begin.THOUGHT | Begin.THOUGHT_ON:
            return (Mark.THINK, f"\n{reasoning}")
        case Begin.ANSWER | Begin.ANSWER_ON:
            return (Mark.THINK, f"\n{reasoning}\n", Mark.END_THINK, f"\n\n{_content(prefix)}")
        case _:
            assert_never(begin)


def _zero_opening(prefix: Prefix | None, begin: Begin) -> str:
    """The same for R1-Zero, in its tags; it never ends with a space, which belongs to a word."""
    match begin:
        case Begin.EITHER:
            words = []
        case Begin.THOUGHT | Begin.THOUGHT_ON:
            words = ["<think>", _reasoning(prefix)]
        case Begin.ANSWER | Begin.ANSWER_ON:
            words = ["<think>", _reasoning(prefix), "</think>", "<answer>", _content(prefix)]
        case _:
            assert_never(begin)
    return "".join(f" {word}" for word in words if word)


def _reasoning(prefix: Prefix | None) -> str:
    return (prefix.reasoning or "") if prefix else ""


def _content(prefix: Prefix | None) -> str:
    return (prefix.content or "") if prefix else ""
