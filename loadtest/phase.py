"""The phases of a reply."""

import enum


class Phase(enum.Enum):
    """What a piece of a stream belongs to."""

    THINKING = enum.auto()
    ANSWER = enum.auto()  # tool calls too
