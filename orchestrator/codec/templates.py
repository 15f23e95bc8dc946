"""The chat templates of R1 and its relatives, as text and marks in turn.

    <BOS> system <User> question <Assistant> answer <EOS> <User> question <Assistant>
    ... <Assistant> text <calls> ... </calls> <EOS> <outputs> ... </outputs> answer <EOS> ...

What was published with the checkpoints has faults that are not repeated here. Every round of tool
calls is well-formed, not just the first. Text beside a tool call stands before it, once. Reasoning
is left out wherever it was. The reasoning kinds are told to go on after the results of tools. An
answer that follows no question still begins with `<｜Assistant｜>`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from orchestrator.codec.messages import (
    AssistantMessage,
    Conversation,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from orchestrator.codec.tokenizer import Mark
from orchestrator.codec.tool_definitions import tool_definitions
from orchestrator.spec import SystemPrompt, TemplateKind

Part = str | Mark


def instructions(conversation: Conversation) -> tuple[Part, ...]:
    """The text of all system messages, and the definitions of tools; empty if there are none."""
    systems = [m.content for m in conversation.messages if isinstance(m, SystemMessage)]
    system = "\n\n".join(systems)
    if not conversation.tools:
        return (system,) if system else ()
    definitions = tool_definitions(conversation.tools)
    return (f"{system}\n\n", *definitions) if system else definitions


def answer_of(message: AssistantMessage) -> str:
    """Its text without the reasoning."""
    return message.content.rpartition(Mark.END_THINK)[2]


def calls_of(message: AssistantMessage) -> Iterator[Part]:
    """Its block of tool calls, if it has any."""
    if not message.tool_calls:
        return
    yield Mark.TOOL_CALLS
    for at, call in enumerate(message.tool_calls):
        if at:
            yield "\n"
        yield from _call(call)
    yield Mark.END_TOOL_CALLS


@dataclass(frozen=True, slots=True)
class Style:
    """In what the templates with control tokens differ.

    `<｜Assistant｜>` is the end of a user's turn, even before another one, or the beginning of an
    answer.
    """

    user_ends_with_assistant: bool
    between_outputs: str
    assistant_after_outputs: bool  # in the prompt for the next answer; earlier ones have it not


STYLES: Mapping[TemplateKind, Style] = {
    TemplateKind.R1: Style(False, "", True),
    TemplateKind.DISTILL: Style(False, "\n", True),
    TemplateKind.R1_0528: Style(True, "\n", True),
    TemplateKind.V3_0324: Style(True, "\n", False),
}


def turns(
    style: Style, messages: Sequence[Message], head: Sequence[Part], system_prompt: SystemPrompt
) -> Iterator[Part]:
    """The conversation from after the begin of sentence to where the answer begins."""
    spoken = [m for m in messages if not isinstance(m, SystemMessage)]
    if system_prompt is SystemPrompt.KEEP:
        yield from head
        head = ()
    elif head and not any(isinstance(m, UserMessage) for m in spoken):
        spoken = [UserMessage(""), *spoken]
    elif head:
        head = (*head, "\n\n")
    before: Message | None = None
    for message in spoken:
        after_output = isinstance(before, ToolMessage)
        if after_output and not isinstance(message, ToolMessage):
            yield Mark.END_TOOL_OUTPUTS
        match message:
            case UserMessage(content):
                yield from _user(style, head, content)
                head = ()
            case AssistantMessage():
                yield from _assistant(style, before, message)
            case ToolMessage(content):
                yield style.between_outputs if after_output else Mark.TOOL_OUTPUTS
                yield from (Mark.TOOL_OUTPUT, content, Mark.END_TOOL_OUTPUT)
            case _:
                assert_never(message)
        before = message
    yield from _end(style, before)


def _end(style: Style, last: Message | None) -> Iterator[Mark]:
    if isinstance(last, ToolMessage):
        yield Mark.END_TOOL_OUTPUTS
        if style.assistant_after_outputs:
            yield Mark.ASSISTANT
    elif not _begun(style, last):
        yield Mark.ASSISTANT


def _begun(style: Style, before: Message | None) -> bool:
    """Whether `<｜Assistant｜>` stands at the end of the turn before."""
    return style.user_ends_with_assistant and isinstance(before, UserMessage)


def _user(style: Style, head: Sequence[Part], content: str) -> Iterator[Part]:
    yield from (Mark.USER, *head, content)
    if style.user_ends_with_assistant:
        yield Mark.ASSISTANT


def _assistant(style: Style, before: Message | None, message: AssistantMessage) -> Iterator[Part]:
    if not (isinstance(before, ToolMessage) or _begun(style, before)):
        yield Mark.ASSISTANT
    yield from (answer_of(message), *calls_of(message), Mark.END_OF_SENTENCE)


def _call(call: ToolCall) -> tuple[Part, ...]:
    text = f"{call.name}\n```json\n{call.arguments}\n```"
    return (Mark.TOOL_CALL, "function", Mark.TOOL_SEP, text, Mark.END_TOOL_CALL)


# The prompt that R1-Zero was trained with: Table 1 of https://arxiv.org/abs/2501.12948, up to
# "User: ". It knows no system prompt, no earlier turns and no tools; those are our addition.
_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think> </think> "
    "and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>."
)


def zero_turns(messages: Sequence[Message], head: str, system_prompt: SystemPrompt) -> str:
    """R1-Zero's conversation up to `Assistant:`, with all marks as text."""
    folded = system_prompt is SystemPrompt.FOLD
    text = f"{_ZERO}\n\n{head}\n\n" if head and not folded else f"{_ZERO} "
    head = f"{head}\n\n" if head and folded else ""
    spoken = [m for m in messages if not isinstance(m, SystemMessage)]
    if not any(isinstance(m, UserMessage) for m in spoken):
        spoken = [UserMessage(""), *spoken]
    for at, message in enumerate(spoken):
        match message:
            case UserMessage(content):
                text += "\n" * bool(at) + f"User: {head}{content}."
                head = ""
            case AssistantMessage():
                calls = "".join(calls_of(message))
                text += f" Assistant: <answer> {answer_of(message)}{calls} </answer>"
            case ToolMessage(content):
                text += f"\nTool: {content}"
            case _:
                assert_never(message)
    return f"{text} Assistant:"
