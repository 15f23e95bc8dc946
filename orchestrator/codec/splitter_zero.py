"""R1-Zero's output, whose tags are text: `<think> ... </think> <answer> ... </answer>`."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import assert_never

from orchestrator.codec.detokenizer import Detokenizer
from orchestrator.codec.pieces import AnswerText, Piece, ReasoningText, append
from orchestrator.codec.render import Begin
from orchestrator.codec.stops import StopMatcher, begins_at
from orchestrator.codec.tokenizer import Tokenizer

_THINK, _END_THINK, _ANSWER, _END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"


class _Phase(Enum):
    BEFORE = auto()  # nothing but blanks has come, and no tag
    OPENED = auto()  # reasoning, nothing but blanks so far
    THINK = auto()
    CLOSED = auto()  # after the reasoning, nothing but blanks so far
    TAGGED = auto()  # after `<answer>`, nothing but blanks so far
    ANSWER = auto()


_FIRST = {
    Begin.THOUGHT: _Phase.OPENED,
    Begin.THOUGHT_ON: _Phase.THINK,
    Begin.EITHER: _Phase.BEFORE,
    Begin.ANSWER: _Phase.TAGGED,
    Begin.ANSWER_ON: _Phase.ANSWER,
}
_TAGS = {
    _Phase.BEFORE: {
        _THINK: _Phase.OPENED,
        _END_THINK: _Phase.CLOSED,
        _ANSWER: _Phase.TAGGED,
    },
    _Phase.OPENED: {_THINK: _Phase.OPENED, _END_THINK: _Phase.CLOSED},
    _Phase.THINK: {_END_THINK: _Phase.CLOSED},
    _Phase.CLOSED: {_ANSWER: _Phase.TAGGED},
    _Phase.TAGGED: {_ANSWER: _Phase.TAGGED},
}
_REASONING = frozenset((_Phase.OPENED, _Phase.THINK))
_ANSWERING = frozenset((_Phase.CLOSED, _Phase.TAGGED, _Phase.ANSWER))


class ZeroSplitter:
    """One request's output, from ids to pieces; used as `Splitter` is, without tool calls.

    The pieces joined do not depend on how the ids were cut into pushes. A tag may be one token or
    be spelled in several. Reasoning and answer lose the blanks at both their ends, but those that
    follow a beginning in the prompt, and those at the end of an answer without `</answer>`. A tag
    counts only where its part begins or ends; elsewhere it is text. `stopped` holds at `</answer>`.
    A stop string that ends in blanks is found with the text after them.
    """

    tool_calls = 0

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        begin: Begin,
        stop: Sequence[str] = (),
        answer_tokens_max: int | None = None,
    ) -> None:
        assert answer_tokens_max is None or answer_tokens_max > 0
        self._text = Detokenizer(tokenizer)
        self._stops = StopMatcher(stop) if stop else None
        self._answer_tokens = 0
        self._answer_tokens_max = answer_tokens_max
        self._phase = _FIRST[begin]
        self._held = ""  # blanks whose meaning is open, then perhaps the beginning of a tag
        self._closed = False  # `</answer>` has come
        self.completion_tokens = 0
        self.reasoning_tokens = 0  # including those of the tag that closed the reasoning

    @property
    def answering(self) -> bool:
        """Whether the answer has begun."""
        return self._phase in _ANSWERING

    @property
    def exhausted(self) -> bool:
        """Whether the answer has all the ids that it may have."""
        most = self._answer_tokens_max
        return most is not None and self.answering and self._answer_tokens >= most

    @property
    def stopped(self) -> bool:
        """Whether the answer was closed, or a stop string was found."""
        return self._closed or (self._stops is not None and self._stops.matched)

    def push(self, ids: Sequence[int]) -> tuple[Piece, ...]:
        """The pieces that `ids` complete; neighbours of one kind are joined."""
        pieces: list[Piece] = []
        for id_ in ids:
            if self.stopped or self.exhausted:
                break
            thinking = self._phase in _REASONING
            self.completion_tokens += 1
            self.reasoning_tokens += thinking
            if text := self._text.push((id_,)):
                self._read(text, pieces)
            outside = thinking or self._phase in _REASONING
            self._answer_tokens = 0 if outside else self._answer_tokens + 1
        return tuple(pieces)

    def end(self) -> tuple[Piece, ...]:
        """What was held back, when no more ids will come; to be called once."""
        pieces: list[Piece] = []
        if self.stopped:
            return ()
        if text := self._text.flush():
            self._read(text, pieces)
        held, self._held = self._held, ""
        match self._phase:
            case _Phase.OPENED | _Phase.THINK:
                self._reasoning(held.rstrip(), pieces)
            case _Phase.BEFORE | _Phase.CLOSED | _Phase.TAGGED:
                self._answer(held.lstrip(), pieces)
            case _Phase.ANSWER:
                self._answer(held, pieces)
            case _:
                assert_never(self._phase)
        self._let_go(pieces)
        return tuple(pieces)

    def _read(self, text: str, pieces: list[Piece]) -> None:
        text, self._held = self._held + text, ""
        while text and not self.stopped:
            match self._phase:
                case _Phase.THINK:
                    text = self._think(text, pieces)
                case _Phase.ANSWER:
                    text = self._speak(text, pieces)
                case _:
                    text = self._start(text, self._phase)

    def _start(self, text: str, phase: _Phase) -> str:
        """At the beginning of a part: past a tag, or into the text; what is left to read."""
        body = text.lstrip()
        for tag, then in _TAGS[phase].items():
            if body.startswith(tag):
                self._phase = then
                return body[len(tag) :]
            if tag.startswith(body):  # as yet, and also if there is nothing but blanks
                self._held = text
                return ""
        self._phase = _Phase.THINK if phase is _Phase.OPENED else _Phase.ANSWER
        return body

    def _think(self, text: str, pieces: list[Piece]) -> str:
        body, closed, rest = text.partition(_END_THINK)
        if closed:
            self._reasoning(body.rstrip(), pieces)
            self._phase = _Phase.CLOSED
            return rest
        self._reasoning(self._hold(text, _END_THINK), pieces)
        return ""

    def _speak(self, text: str, pieces: list[Piece]) -> str:
        body, closed, _ = text.partition(_END_ANSWER)
        if closed:
            self._answer(body.rstrip(), pieces)
            self._let_go(pieces)
            self._closed = True
            return ""
        self._answer(self._hold(text, _END_ANSWER), pieces)
        return ""

    def _hold(self, text: str, tag: str) -> str:
        """The text but for its end that may be `tag`, and the blanks before that; holds those."""
        safe = len(text[: begins_at(tag, text)].rstrip())
        self._held = text[safe:]
        return text[:safe]

    def _reasoning(self, text: str, pieces: list[Piece]) -> None:
        if text:
            append(pieces, ReasoningText(text))

    def _answer(self, text: str, pieces: list[Piece]) -> None:
        if self._stops is not None:
            text = self._stops.push(text)
        if text:
            append(pieces, AnswerText(text))

    def _let_go(self, pieces: list[Piece]) -> None:
        if self._stops is not None and (text := self._stops.flush()):
            append(pieces, AnswerText(text))
