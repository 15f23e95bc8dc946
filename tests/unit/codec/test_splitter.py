from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import (
    AnswerText,
    Piece,
    ReasoningText,
    Splitter,
    Tokenizer,
    ToolCallArguments,
    ToolCallStart,
)
from orchestrator.codec.tokenizer import CONTROL_NAMES

THINK, END_THINK, CALLS, CALL, SEP = 128798, 128799, 128806, 128808, 128814
NEWLINE, BLANK_LINE = 201, 271

# Ids as a model under test may draw them: tags, newlines and broken characters are likely.
any_id = st.one_of(
    st.sampled_from([THINK, END_THINK, CALLS, 128807, CALL, 128809, SEP, NEWLINE, BLANK_LINE, 223]),
    st.integers(0, 129_279),
)
any_ids = st.lists(any_id, max_size=30)
text_ids = st.lists(
    st.sampled_from([NEWLINE, BLANK_LINE, 223]) | st.integers(3, 127_999), max_size=15
)
stop_strings = st.lists(st.sampled_from(["\n", "\n\n", "a", "</think>", "the", " "]), max_size=2)


@dataclass
class Output:
    """All pieces of one completion, joined."""

    reasoning: str = ""
    answer: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    stopped: bool = False

    def add(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            match piece:
                case ReasoningText(text):
                    assert not self.answer
                    self.reasoning += text
                case AnswerText(text):
                    self.answer += text
                case ToolCallStart(_, name):
                    self.calls += ((name, ""),)
                case ToolCallArguments(index, text):
                    assert index == len(self.calls) - 1
                    self.calls = (*self.calls[:-1], (self.calls[-1][0], self.calls[-1][1] + text))


def split(
    tokenizer: Tokenizer,
    chunks: Sequence[Sequence[int]],
    *,
    thinking: bool = True,
    stop: Sequence[str] = (),
) -> Output:
    splitter = Splitter(tokenizer, thinking=thinking, stop=stop)
    output = Output()
    for chunk in chunks:
        output.add(splitter.push(chunk))
    output.add(splitter.end())
    output.completion_tokens = splitter.completion_tokens
    output.reasoning_tokens = splitter.reasoning_tokens
    output.stopped = splitter.stopped
    assert splitter.tool_calls == len(output.calls)
    return output


@given(
    ids=any_ids,
    cuts=st.lists(st.integers(0, 30)),
    thinking=st.booleans(),
    stop=stop_strings,
)
def test_the_output_does_not_depend_on_the_chunks(
    tokenizer: Tokenizer, ids: list[int], cuts: list[int], thinking: bool, stop: list[str]
) -> None:
    edges = [0, *sorted(cuts), len(ids)]
    chunks = [ids[a:b] for a, b in pairwise(edges)]
    one_by_one = split(tokenizer, [[id_] for id_ in ids], thinking=thinking, stop=stop)
    assert split(tokenizer, chunks, thinking=thinking, stop=stop) == one_by_one


@given(reasoning=text_ids, answer=text_ids)
def test_the_parts_are_the_decoded_whole_without_the_trims(
    tokenizer: Tokenizer, reasoning: list[int], answer: list[int]
) -> None:
    output = split(tokenizer, [[*reasoning, END_THINK, *answer]])
    assert output.reasoning == tokenizer.decode(reasoning).strip("\n")
    assert output.answer == tokenizer.decode(answer).lstrip("\n")
    assert output.reasoning_tokens == len(reasoning) + 1
    assert output.completion_tokens == len(reasoning) + 1 + len(answer)


@given(ids=text_ids)
def test_reasoning_without_an_end_leaves_the_answer_empty(
    tokenizer: Tokenizer, ids: list[int]
) -> None:
    output = split(tokenizer, [ids])
    assert (output.reasoning, output.answer) == (tokenizer.decode(ids).strip("\n"), "")
    assert output.reasoning_tokens == output.completion_tokens == len(ids)


@given(ids=text_ids)
def test_a_model_that_skips_reasoning_answers(tokenizer: Tokenizer, ids: list[int]) -> None:
    output = split(tokenizer, [ids], thinking=False)
    assert (output.reasoning, output.answer) == ("", tokenizer.decode(ids).lstrip("\n"))
    assert output.reasoning_tokens == 0


@given(text=st.text(max_size=20))
def test_tags_spelled_in_text_turn_nothing(tokenizer: Tokenizer, text: str) -> None:
    spelled = f"a{text}</think>{CONTROL_NAMES['tool_calls']}{text}b"
    output = split(tokenizer, [tokenizer.encode(spelled)])
    assert output.reasoning == spelled


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("before", ["", "\n", " \n\n"])
def test_a_reasoning_tag_of_the_models_own_does_not_leak(
    tokenizer: Tokenizer, thinking: bool, before: str
) -> None:
    ids = [*tokenizer.encode(before), THINK, *tokenizer.encode("\nso\n"), END_THINK]
    output = split(tokenizer, [ids, tokenizer.encode("\n\nyes\n")], thinking=thinking)
    assert (output.reasoning, output.answer) == ("so", "yes\n")


def test_tags_where_they_mean_nothing_are_text(tokenizer: Tokenizer) -> None:
    so = tokenizer.encode("so")
    output = split(tokenizer, [[*so, THINK, *so, END_THINK, *so, END_THINK, *so, THINK]])
    assert (output.reasoning, output.answer) == ("so<think>so", "so</think>so<think>")


def test_a_tool_call_closes_the_reasoning(tokenizer: Tokenizer) -> None:
    call = [CALLS, CALL, *tokenizer.encode("function"), SEP, *tokenizer.encode("f\n```json\n{}")]
    output = split(tokenizer, [[*tokenizer.encode("I call.\n"), *call]])
    assert (output.reasoning, output.answer, output.calls) == ("I call.", "", (("f", "{}"),))
    assert output.reasoning_tokens == len(tokenizer.encode("I call.\n"))


def test_blanks_inside_the_reasoning_are_kept(tokenizer: Tokenizer) -> None:
    output = split(tokenizer, [[id_] for id_ in tokenizer.encode(" a\n\n\n b \n\n")])
    assert output.reasoning == " a\n\n\n b "


def test_a_stop_string_applies_to_the_answer_only(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("END of thought"), END_THINK, *tokenizer.encode("\n\nThe END. More.")]
    output = split(tokenizer, [ids], stop=["END", "\n\n"])
    assert (output.reasoning, output.answer) == ("END of thought", "The ")
    assert output.stopped


@given(answer=text_ids, after=any_ids)
def test_nothing_after_a_stop_string_is_read_or_counted(
    tokenizer: Tokenizer, answer: list[int], after: list[int]
) -> None:
    upto = [END_THINK, *answer, *tokenizer.encode("x@@STOP@@")]
    stop = ["@@STOP@@"]
    output = split(tokenizer, [[*upto, *after]], stop=stop)
    assert output == split(tokenizer, [upto], stop=stop)
    assert output.stopped
    assert output.completion_tokens == len(upto)
    assert output.answer == (tokenizer.decode(answer) + "x").lstrip("\n")


def test_joins_neighbours_of_one_kind_into_one_piece(tokenizer: Tokenizer) -> None:
    a = tokenizer.encode("one two three")
    splitter = Splitter(tokenizer, thinking=True, stop=["@"])
    assert splitter.push([*a, END_THINK, *a]) == (
        ReasoningText("one two three"),
        AnswerText("one two three"),
    )
