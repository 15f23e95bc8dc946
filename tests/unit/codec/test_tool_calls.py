import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AnswerText,
    Begin,
    Mark,
    Piece,
    Splitter,
    Tokenizer,
    ToolCallArguments,
    ToolCallStart,
)

ARGUMENTS = '{\n  "city": "Zürich",\n  "code": "```x```"\n}'


def call(tokenizer: Tokenizer, body: str, *, kind: str = "function") -> list[int]:
    return tokenizer.assemble([Mark.TOOL_CALL, kind, Mark.TOOL_SEP, body, Mark.END_TOOL_CALL])


def block(tokenizer: Tokenizer, *calls: list[int]) -> list[int]:
    newline = tokenizer.encode("\n")
    body = [id_ for at, ids in enumerate(calls) for id_ in [*newline * bool(at), *ids]]
    begin = tokenizer.assemble([Mark.TOOL_CALLS])
    return [*begin, *body, *tokenizer.assemble([Mark.END_TOOL_CALLS])]


def split(tokenizer: Tokenizer, ids: list[int], size: int = 1) -> list[Piece]:
    splitter = Splitter(tokenizer, begin=Begin.EITHER)
    chunks = [ids[at : at + size] for at in range(0, len(ids), size)]
    return [piece for chunk in chunks for piece in splitter.push(chunk)] + [*splitter.end()]


def calls_of(pieces: list[Piece]) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        match piece:
            case ToolCallStart(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case ToolCallArguments(index, text):
                calls[index] = (calls[index][0], calls[index][1] + text)
            case _:
                pass
    return calls


@given(size=st.integers(1, 60))
def test_calls_over_several_lines_come_whole_however_they_are_chunked(
    tokenizer: Tokenizer, size: int
) -> None:
    first = call(tokenizer, f"weather\n```json\n{ARGUMENTS}\n```")
    second = call(tokenizer, "now\n```json\n{}\n```")
    ids = tokenizer.encode("Let me look.") + block(tokenizer, first, second)
    pieces = split(tokenizer, ids, size)
    assert calls_of(pieces) == [("weather", ARGUMENTS), ("now", "{}")]
    assert json.loads(calls_of(pieces)[0][1])["city"] == "Zürich"
    assert [p.text for p in pieces if isinstance(p, AnswerText)][:1] != []
    assert "".join(p.text for p in pieces if isinstance(p, AnswerText)) == "Let me look."


def test_arguments_are_streamed_as_they_come(tokenizer: Tokenizer) -> None:
    ids = block(tokenizer, call(tokenizer, f"weather\n```json\n{ARGUMENTS}\n```"))
    pieces = split(tokenizer, ids)
    assert pieces[0] == ToolCallStart(0, "weather")
    assert len(pieces) > 10


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ("f\n```json\n{}\n```\n", [("f", "{}")]),  # blanks after the fence
        ("f\n{}", [("f", "{}")]),  # no fences
        ("f\n```\n{}\n```", [("f", "{}")]),  # a fence without its language
        ("f\n```json\n{}", [("f", "{}")]),  # no closing fence
        ("f\n```json\n{}\n``", [("f", "{}\n``")]),
        ("f\n```json\nnot json\n```", [("f", "not json")]),
        ("f\n```json\n\n```", [("f", "")]),
        ("f", [("f", "")]),
    ],
)
def test_a_call_that_does_not_fit_the_format_is_not_lost(
    tokenizer: Tokenizer, body: str, calls: list[tuple[str, str]]
) -> None:
    ids = block(tokenizer, call(tokenizer, body))
    assert calls_of(split(tokenizer, ids, 1)) == calls
    assert calls_of(split(tokenizer, ids, 99)) == calls


def test_text_without_a_name_is_answer(tokenizer: Tokenizer) -> None:
    ids = tokenizer.assemble([Mark.TOOL_CALLS, "hm", Mark.END_TOOL_CALLS])
    assert split(tokenizer, ids) == [AnswerText("hm")]


@given(length=st.integers(0, 60))
def test_arguments_cut_short_are_a_prefix(tokenizer: Tokenizer, length: int) -> None:
    ids = block(tokenizer, call(tokenizer, f"weather\n```json\n{ARGUMENTS}\n```"))[:length]
    pieces = split(tokenizer, ids)
    assert not any(isinstance(piece, AnswerText) for piece in pieces)
    for name, arguments in calls_of(pieces):
        assert "weather".startswith(name)
        assert ARGUMENTS.startswith(arguments.removesuffix("\ufffd").rstrip("`\n"))


def test_a_type_that_there_is_not_is_answer(tokenizer: Tokenizer) -> None:
    ids = block(tokenizer, call(tokenizer, "f\n```json\n{}\n```", kind="retrieval"))
    pieces = split(tokenizer, ids)
    assert pieces[0] == AnswerText("retrieval")
    assert calls_of(pieces) == [("f", "{}")]
