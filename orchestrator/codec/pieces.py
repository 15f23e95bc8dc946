"""What a completion is made of, in the order in which it is to be sent."""

import msgspec

# `gc=False`: pieces hold strings and integers only, and there is at least one per engine step and
# request, so the cycle collector need not look at them.


class ReasoningText(msgspec.Struct, frozen=True, gc=False):
    """More of the reasoning; never empty."""

    text: str


class AnswerText(msgspec.Struct, frozen=True, gc=False):
    """More of the answer; never empty."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True, gc=False):
    """The model calls a function; `index` counts the calls of one completion from 0."""

    index: int
    name: str


class ToolCallArguments(msgspec.Struct, frozen=True, gc=False):
    """More of the arguments of the call `index`, as the model wrote them; never empty.

    All of them joined should be JSON. The model may write something else, and then so do we.
    """

    index: int
    text: str


Piece = ReasoningText | AnswerText | ToolCallStart | ToolCallArguments


def append(pieces: list[Piece], piece: Piece) -> None:
    """Adds `piece`, joined to the last one if both are text of the same kind."""
    if not pieces:
        pieces.append(piece)
        return
    last = pieces[-1]
    match piece:
        case ReasoningText(text) if isinstance(last, ReasoningText):
            pieces[-1] = ReasoningText(last.text + text)
        case AnswerText(text) if isinstance(last, AnswerText):
            pieces[-1] = AnswerText(last.text + text)
        case ToolCallArguments(index, text) if (
            isinstance(last, ToolCallArguments) and last.index == index
        ):
            pieces[-1] = ToolCallArguments(index, last.text + text)
        case _:
            pieces.append(piece)
