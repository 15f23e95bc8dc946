"""The prompt of the R1 kind: DeepSeek-R1, template of 2025-02.

The text is that of the chat template published with the checkpoint, whose last line opens the
reasoning with `<think>\\n`. It exists only as ids: this is the one place where a prompt is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from orchestrator.codec.messages import AssistantMessage, Message, SystemMessage, UserMessage
from orchestrator.codec.tokenizer import CONTROL_NAMES, Tokenizer


class SystemPrompt(StrEnum):
    """Where the text of system messages goes."""

    FOLD = "fold"  # before the first user message, in its turn
    KEEP = "keep"  # before the first turn, as the template has it


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets. `thinking`: it ends inside a reasoning block that it has opened."""

    ids: tuple[int, ...]
    thinking: bool


def render_r1(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    system_prompt: SystemPrompt = SystemPrompt.FOLD,
) -> Prompt:
    """The prompt for the next answer in a conversation: one begin of sentence, then the turns.

    System messages, wherever they stand, are joined by blank lines. R1's authors advise against a
    system prompt (https://github.com/deepseek-ai/DeepSeek-R1, Usage Recommendations), hence FOLD.
    Of an earlier answer only what follows its last `</think>` is kept.
    """
    control = tokenizer.control
    system = "\n\n".join(m.content for m in messages if isinstance(m, SystemMessage))
    turns: list[Message] = [m for m in messages if not isinstance(m, SystemMessage)]
    ids = [control.begin_of_sentence]
    if system and system_prompt is SystemPrompt.FOLD:
        turns = _fold(system, turns)
    else:
        ids += tokenizer.encode(system)
    for turn in turns:
        match turn:
            case UserMessage(content):
                ids += [control.user, *tokenizer.encode(content)]
            case AssistantMessage(content):
                answer = content.rpartition(CONTROL_NAMES["end_think"])[2]
                ids += [control.assistant, *tokenizer.encode(answer), control.end_of_sentence]
            case SystemMessage():
                raise AssertionError("system messages are no turns")
            case _:
                assert_never(turn)
    ids += [control.assistant, control.think, *tokenizer.encode("\n")]
    assert ids.count(control.begin_of_sentence) == 1
    return Prompt(tuple(ids), thinking=True)


def _fold(system: str, turns: list[Message]) -> list[Message]:
    """The turns with `system` before the first user's text, or as a turn of its own if none is."""
    for at, turn in enumerate(turns):
        if isinstance(turn, UserMessage):
            folded = UserMessage(f"{system}\n\n{turn.content}")
            return [*turns[:at], folded, *turns[at + 1 :]]
    return [UserMessage(system), *turns]
