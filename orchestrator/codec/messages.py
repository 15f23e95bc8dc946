"""A conversation as renderers see it: text only, normalised, nothing optional but the absent."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions that hold for the whole conversation, wherever they stand in it."""

    content: str


@dataclass(frozen=True, slots=True)
class UserMessage:
    """One turn of the user."""

    content: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made earlier; `arguments` is the text it wrote, usually JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """One earlier answer of the model; `content` may still carry its reasoning up to `</think>`."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """What a tool returned; results stand in the order of the calls before them."""

    content: str


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A function that the model may call. `parameters` is its JSON Schema, as JSON text."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of the answer, which the model is to continue (chat prefix completion).

    `reasoning` None and `content` None do not occur together; without `content` the model goes on
    thinking.
    """

    reasoning: str | None
    content: str | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that a prompt is made of."""

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    prefix: Prefix | None = None
    suppress_thinking: bool = False  # the reasoning block is opened and closed in the prompt
