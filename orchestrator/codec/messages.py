"""A conversation as renderers see it: text only, normalised, nothing optional."""

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
class AssistantMessage:
    """One earlier answer of the model; `content` may still carry its reasoning up to `</think>`."""

    content: str


Message = SystemMessage | UserMessage | AssistantMessage
