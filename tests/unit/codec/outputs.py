"""What tests of splitters share: a completion's pieces joined, whatever pushes they came in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.codec import (
    AnswerText,
    Begin,
    Piece,
    ReasoningText,
    Tokenizer,
    ToolCallArguments,
    ToolCallStart,
    splitter_for,
)
from orchestrator.spec import TemplateKind


@dataclass
class Output:
    """All pieces of one completion, joined."""

    reasoning: str = ""
    answer: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""  # all that the pieces hold, in their order
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    stopped: bool = False
    exhausted: bool = False
    answering: bool = False

    def add(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            match piece:
                case ReasoningText(text):
                    assert text
                    assert not self.answer
                    assert not self.calls
                    self.reasoning += text
                case AnswerText(text):
                    assert text
                    self.answer += text
                case ToolCallStart(index, text):
                    assert index == len(self.calls)
                    self.calls.append((text, ""))
                case ToolCallArguments(index, text):
                    assert text
                    assert index == len(self.calls) - 1
                    name, before = self.calls[-1]
                    self.calls[-1] = (name, before + text)
            self.text += text


def split(
    tokenizer: Tokenizer,
    chunks: Sequence[Sequence[int]],
    *,
    template: TemplateKind = TemplateKind.R1,
    begin: Begin = Begin.THOUGHT,
    stop: Sequence[str] = (),
    answer_tokens_max: int | None = None,
    tools: bool = True,
) -> Output:
    """The output of a splitter that gets `chunks` one after the other."""
    splitter = splitter_for(
        template,
        tokenizer,
        begin=begin,
        stop=stop,
        answer_tokens_max=answer_tokens_max,
        tools=tools,
    )
    output = Output()
    for chunk in chunks:
        answering = splitter.answering
        output.add(splitter.push(chunk))
        assert splitter.answering or not answering
    output.exhausted = splitter.exhausted
    output.add(splitter.end())
    output.completion_tokens = splitter.completion_tokens
    output.reasoning_tokens = splitter.reasoning_tokens
    output.stopped = splitter.stopped
    output.answering = splitter.answering
    assert splitter.tool_calls == len(output.calls)
    return output


def cut(ids: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    """`ids` in chunks that end at `cuts`; some may be empty."""
    edges = [0, *sorted(min(at, len(ids)) for at in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


def one_by_one(ids: Sequence[int]) -> list[list[int]]:
    return [[id_] for id_ in ids]
