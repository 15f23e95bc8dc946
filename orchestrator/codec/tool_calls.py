"""Tool calls in R1's format, read as they come.

    <calls> <call> type <sep> name \\n```json\\n arguments \\n``` </call> ... </calls>

where the marks are control tokens. Nothing the model writes is lost: what does not fit the format
becomes a call without arguments, arguments that are no JSON, or answer text.
"""

import re
from enum import Enum, auto

from orchestrator.codec.pieces import AnswerText, Piece, ToolCallArguments, ToolCallStart, append
from orchestrator.codec.tokenizer import ControlIds, Mark

_TYPE = "function"  # the only one there is
_CLOSED = "\n```"
_OPENED = "```json\n"
_OPENING = re.compile(r"([^\n]*)\n```(?:json)?\n")
_CLOSING = re.compile(r"\n(?:`{0,2}|```\s*)\Z")  # the closing fence, or what may become one


class _Part(Enum):
    BETWEEN = auto()  # outside any call
    HEAD = auto()  # before the separator
    NAME = auto()  # up to the fence that opens the arguments
    ARGUMENTS = auto()


class ToolCallReader:
    """Reads blocks of calls; `push`, `mark` and `end` add the pieces they complete to a list.

    The pieces joined do not depend on how the text was cut.
    """

    def __init__(self, control: ControlIds) -> None:
        self._control = control
        self._part = _Part.BETWEEN
        self._held = ""  # text of the current part whose meaning is open
        self.started = 0  # calls seen so far
        marks = (control.tool_call, control.end_tool_call, control.tool_sep, control.end_tool_calls)
        self.marks = frozenset(id_ for id_ in marks if id_ is not None)

    def mark(self, id_: int, pieces: list[Piece]) -> None:
        """One of `marks`; a separator outside a call's head is text."""
        if id_ != self._control.tool_sep:
            self.end(pieces)
            if id_ == self._control.tool_call:
                self._part = _Part.HEAD
        elif self._part is _Part.HEAD:
            self.end(pieces)  # a type that there is not
            self._part = _Part.NAME
        else:
            self.push(str(Mark.TOOL_SEP), pieces)

    def push(self, text: str, pieces: list[Piece]) -> None:
        """Text between two marks."""
        self._held += text
        if self._part is _Part.NAME and (opening := _OPENING.match(self._held)):
            self._held = self._held[opening.end() :]
            self._start(opening[1], pieces)
        if self._part is _Part.ARGUMENTS:
            closing = _CLOSING.search(self._held)
            safe = closing.start() if closing else len(self._held)
            self._arguments(self._held[:safe], pieces)
            self._held = self._held[safe:]

    def end(self, pieces: list[Piece]) -> None:
        """Closes the call that is open, whether or not it is complete."""
        held, self._held = self._held, ""
        match self._part:
            case _Part.BETWEEN | _Part.HEAD:
                if held.strip() not in ("", _TYPE):
                    append(pieces, AnswerText(held))
            case _Part.NAME:
                name, _, arguments = held.partition("\n")
                self._start(name, pieces)
                if not _OPENED.startswith(arguments):
                    self._arguments(arguments.strip(), pieces)
            case _Part.ARGUMENTS:
                if held.rstrip() != _CLOSED:
                    self._arguments(held, pieces)
        self._part = _Part.BETWEEN

    def _start(self, name: str, pieces: list[Piece]) -> None:
        append(pieces, ToolCallStart(self.started, name.strip()))
        self.started += 1
        self._part = _Part.ARGUMENTS

    def _arguments(self, text: str, pieces: list[Piece]) -> None:
        if text:
            append(pieces, ToolCallArguments(self.started - 1, text))
