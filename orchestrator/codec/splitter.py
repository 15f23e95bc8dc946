"""Generated ids of one request, split into reasoning, answer and tool calls as they come."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import assert_never

from orchestrator.codec.detokenizer import Detokenizer
from orchestrator.codec.pieces import AnswerText, Piece, ReasoningText, append
from orchestrator.codec.render import Begin
from orchestrator.codec.stops import StopMatcher
from orchestrator.codec.tokenizer import Tokenizer
from orchestrator.codec.tool_calls import ToolCallReader


class _Phase(Enum):
    BEFORE = auto()  # the prompt opened no reasoning, and nothing but blanks has come
    OPENED = auto()  # reasoning, nothing but blanks so far
    THINK = auto()
    ANSWER = auto()
    CALLS = auto()  # inside a block of tool calls


_FIRST = {
    Begin.THOUGHT: _Phase.OPENED,
    Begin.THOUGHT_ON: _Phase.THINK,
    Begin.EITHER: _Phase.BEFORE,
    Begin.ANSWER: _Phase.ANSWER,
    Begin.ANSWER_ON: _Phase.ANSWER,
}


class Splitter:
    """One request's output, from ids to pieces.

    The pieces joined do not depend on how the ids were cut into pushes. Phases turn on token ids,
    never on text. The reasoning loses its newlines at both ends, the answer those at its beginning,
    but for beginnings that stand in the prompt already.
    `<think>` before any text opens the reasoning, even if the prompt has opened it already;
    `</think>` closes it, and so does a block of tool calls. Elsewhere the two tags are text.

    Without `tools` the marks of tool calls are text as well.

    Stop strings apply to answer text only. After a match `stopped` holds; `exhausted` holds after
    `answer_tokens_max` ids of the answer, tool calls included. Then further ids are neither read
    nor counted, and the caller aborts the generation.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        begin: Begin,
        stop: Sequence[str] = (),
        answer_tokens_max: int | None = None,
        tools: bool = True,
    ) -> None:
        assert answer_tokens_max is None or answer_tokens_max > 0
        self._control = tokenizer.control
        self._tools = tools and tokenizer.has_tools
        self._text = Detokenizer(tokenizer)
        self._calls = ToolCallReader(tokenizer.control)
        self._stops = StopMatcher(stop) if stop else None
        self._blank = ""  # held in BEFORE and OPENED until something decides about it
        self._newlines = 0  # that ended the reasoning so far: trimmed if nothing follows
        self._bare = begin is not Begin.ANSWER_ON  # leading newlines of the answer are trimmed
        self._answer_tokens = 0  # counted only if there is a limit
        self._answer_tokens_max = answer_tokens_max
        self._one_by_one = bool(stop) or answer_tokens_max is not None
        self.completion_tokens = 0
        self.reasoning_tokens = 0  # including the tag that closed the reasoning
        self._enter(_FIRST[begin])

    @property
    def answering(self) -> bool:
        """Whether the answer has begun; a tool call belongs to it."""
        return self._phase is _Phase.ANSWER or self._phase is _Phase.CALLS

    @property
    def exhausted(self) -> bool:
        """Whether the answer has all the ids that it may have."""
        most = self._answer_tokens_max
        return most is not None and self.answering and self._answer_tokens >= most

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops is not None and self._stops.matched

    @property
    def tool_calls(self) -> int:
        """How many tool calls have started."""
        return self._calls.started

    def push(self, ids: Sequence[int]) -> tuple[Piece, ...]:
        """The pieces that `ids` complete; neighbours of one kind are joined."""
        pieces: list[Piece] = []
        if not self._one_by_one:
            self._read(ids, pieces)
            return tuple(pieces)
        for id_ in ids:  # so that the counts end with the id that completed a stop string
            if self.stopped or self.exhausted:
                break
            answering = self.answering
            self._read((id_,), pieces)
            # A tag that opened or closed the reasoning does not belong to the answer.
            turned = id_ == self._control.end_think and not answering
            self._answer_tokens = 0 if self._thinking or turned else self._answer_tokens + 1
        return tuple(pieces)

    def end(self) -> tuple[Piece, ...]:
        """What was held back, when no more ids will come; to be called once."""
        pieces: list[Piece] = []
        if not self.stopped:
            self._flush(pieces)
            self._settle(pieces)
        return tuple(pieces)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._thinking = phase is _Phase.OPENED or phase is _Phase.THINK
        self._turn_ids = self._turns_of(phase)

    def _turns_of(self, phase: _Phase) -> frozenset[int]:
        """The ids that mean more than their text in `phase`."""
        control = self._control
        calls = frozenset({control.tool_calls} if self._tools and control.tool_calls else ())
        match phase:
            case _Phase.BEFORE | _Phase.OPENED:
                return calls | {control.think, control.end_think}
            case _Phase.THINK:
                return calls | {control.end_think}
            case _Phase.ANSWER:
                return calls
            case _Phase.CALLS:
                return self._calls.marks
            case _:
                assert_never(phase)

    def _read(self, ids: Sequence[int], pieces: list[Piece]) -> None:
        self.completion_tokens += len(ids)
        start = 0
        for at, id_ in enumerate(ids):
            if id_ not in self._turn_ids:
                continue
            self._run(ids[start:at], pieces)
            self._flush(pieces)
            start = at
            if id_ in self._turn_ids:  # still, after the text before it
                self._turn(id_, pieces)
                start = at + 1
        self._run(ids[start:] if start else ids, pieces)

    def _run(self, ids: Sequence[int], pieces: list[Piece]) -> None:
        """Ids that stand for their text."""
        if self._thinking:
            self.reasoning_tokens += len(ids)
        if text := self._text.push(ids):
            self._add(text, pieces)

    def _turn(self, id_: int, pieces: list[Piece]) -> None:
        """An id that ends the phase, or structures the block of tool calls."""
        control = self._control
        if self._phase is _Phase.CALLS:
            self._calls.mark(id_, pieces)
            if id_ == control.end_tool_calls:
                self._enter(_Phase.ANSWER)
        elif id_ == control.think:
            self.reasoning_tokens += self._thinking
            self._blank = ""
            self._enter(_Phase.OPENED)
        elif id_ == control.end_think:
            self.reasoning_tokens += self._thinking
            if self._thinking:
                self._settle(pieces)
            self._blank = ""
            self._enter(_Phase.ANSWER)
        else:
            self._settle(pieces)
            self._enter(_Phase.CALLS)

    def _add(self, text: str, pieces: list[Piece]) -> None:
        match self._phase:
            case _Phase.THINK:
                self._add_reasoning(text, pieces)
            case _Phase.ANSWER:
                self._add_answer(text, pieces)
            case _Phase.CALLS:
                self._calls.push(text, pieces)
            case _Phase.BEFORE | _Phase.OPENED:
                self._blank += text
                if not self._blank.isspace():
                    self._decide(pieces)
            case _:
                assert_never(self._phase)

    def _decide(self, pieces: list[Piece]) -> None:
        """Text has come: reasoning if that is open, otherwise the model skips it and answers."""
        text, self._blank = self._blank, ""
        if self._phase is _Phase.OPENED:
            self._enter(_Phase.THINK)
            self._add_reasoning(text.lstrip("\n"), pieces)
        else:
            self._enter(_Phase.ANSWER)
            self._add_answer(text, pieces)

    def _add_reasoning(self, text: str, pieces: list[Piece]) -> None:
        body = text.rstrip("\n")
        if not body:
            self._newlines += len(text)
            return
        append(pieces, ReasoningText("\n" * self._newlines + body))
        self._newlines = len(text) - len(body)

    def _add_answer(self, text: str, pieces: list[Piece]) -> None:
        if self._bare:
            text = text.lstrip("\n")
            self._bare = not text
        if self._stops is not None:
            text = self._stops.push(text)
        if text:
            append(pieces, AnswerText(text))

    def _flush(self, pieces: list[Piece]) -> None:
        """Gives up on half a character."""
        if text := self._text.flush():
            self._add(text, pieces)

    def _settle(self, pieces: list[Piece]) -> None:
        """Lets go of what the phase has held back, as it ends."""
        match self._phase:
            case _Phase.OPENED:
                if text := self._blank.strip("\n"):
                    append(pieces, ReasoningText(text))
            case _Phase.BEFORE:
                self._decide(pieces)
                self._settle(pieces)
            case _Phase.THINK:
                self._newlines = 0
            case _Phase.ANSWER:
                if self._stops is not None and (text := self._stops.flush()):
                    append(pieces, AnswerText(text))
            case _Phase.CALLS:
                self._calls.end(pieces)
            case _:
                assert_never(self._phase)
