from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import AnswerText, Begin, Mark, ReasoningText, Splitter, Tokenizer
from tests.unit.codec.outputs import Output, cut, split

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


@given(
    ids=any_ids,
    cuts=st.lists(st.integers(0, 30)),
    begin=st.sampled_from(Begin),
    stop=stop_strings,
    answer_tokens_max=st.none() | st.integers(1, 9),
    tools=st.booleans(),
)
def test_the_output_does_not_depend_on_the_chunks(
    tokenizer: Tokenizer,
    ids: list[int],
    cuts: list[int],
    begin: Begin,
    stop: list[str],
    answer_tokens_max: int | None,
    tools: bool,
) -> None:
    def output(chunks: Sequence[Sequence[int]]) -> Output:
        return split(
            tokenizer,
            chunks,
            begin=begin,
            stop=stop,
            answer_tokens_max=answer_tokens_max,
            tools=tools,
        )

    assert output(cut(ids, cuts)) == output([[id_] for id_ in ids]) == output([ids])


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
    output = split(tokenizer, [ids], begin=Begin.EITHER)
    assert (output.reasoning, output.answer) == ("", tokenizer.decode(ids).lstrip("\n"))
    assert output.reasoning_tokens == 0


@given(text=st.text(max_size=20))
def test_tags_spelled_in_text_turn_nothing(tokenizer: Tokenizer, text: str) -> None:
    spelled = f"a{text}</think>{Mark.TOOL_CALLS}{text}b"
    output = split(tokenizer, [tokenizer.encode(spelled)])
    assert output.reasoning == spelled


@pytest.mark.parametrize("begin", [Begin.THOUGHT, Begin.EITHER])
@pytest.mark.parametrize("before", ["", "\n", " \n\n"])
def test_a_reasoning_tag_of_the_models_own_does_not_leak(
    tokenizer: Tokenizer, begin: Begin, before: str
) -> None:
    ids = [*tokenizer.encode(before), THINK, *tokenizer.encode("\nso\n"), END_THINK]
    output = split(tokenizer, [ids, tokenizer.encode("\n\nyes\n")], begin=begin)
    assert (output.reasoning, output.answer) == ("so", "yes\n")


def test_tags_where_they_mean_nothing_are_text(tokenizer: Tokenizer) -> None:
    so = tokenizer.encode("so")
    output = split(tokenizer, [[*so, THINK, *so, END_THINK, *so, END_THINK, *so, THINK]])
    assert (output.reasoning, output.answer) == ("so<think>so", "so</think>so<think>")


def test_a_tool_call_closes_the_reasoning(tokenizer: Tokenizer) -> None:
    call = [CALLS, CALL, *tokenizer.encode("function"), SEP, *tokenizer.encode("f\n```json\n{}")]
    output = split(tokenizer, [[*tokenizer.encode("I call.\n"), *call]])
    assert (output.reasoning, output.answer, output.calls) == ("I call.", "", [("f", "{}")])
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
    splitter = Splitter(tokenizer, begin=Begin.THOUGHT, stop=["@"])
    assert splitter.push([*a, END_THINK, *a]) == (
        ReasoningText("one two three"),
        AnswerText("one two three"),
    )


@given(ids=text_ids)
def test_text_that_goes_on_with_the_prompt_keeps_its_first_newlines(
    tokenizer: Tokenizer, ids: list[int]
) -> None:
    answer = split(tokenizer, [ids], begin=Begin.ANSWER_ON)
    assert (answer.reasoning, answer.answer) == ("", tokenizer.decode(ids))
    thought = split(tokenizer, [[*ids, END_THINK]], begin=Begin.THOUGHT_ON)
    assert (thought.reasoning, thought.answer) == (tokenizer.decode(ids).rstrip("\n"), "")
    assert thought.reasoning_tokens == len(ids) + 1


@given(ids=text_ids)
def test_a_fresh_answer_loses_its_first_newlines(tokenizer: Tokenizer, ids: list[int]) -> None:
    output = split(tokenizer, [ids], begin=Begin.ANSWER)
    assert (output.reasoning, output.answer) == ("", tokenizer.decode(ids).lstrip("\n"))
    assert output.answering


@pytest.mark.parametrize("begin", [Begin.ANSWER, Begin.ANSWER_ON, Begin.THOUGHT_ON])
def test_a_reasoning_tag_inside_a_part_is_text(tokenizer: Tokenizer, begin: Begin) -> None:
    output = split(tokenizer, [[THINK, *tokenizer.encode("so")]], begin=begin)
    assert output.text == "<think>so"


@given(reasoning=text_ids, answer=text_ids, most=st.integers(1, 10))
def test_a_limit_counts_the_ids_of_the_answer_only(
    tokenizer: Tokenizer, reasoning: list[int], answer: list[int], most: int
) -> None:
    ids = [*reasoning, END_THINK, *answer]
    output = split(tokenizer, [ids], answer_tokens_max=most)
    assert output.exhausted == (len(answer) >= most)
    assert output.completion_tokens == len(reasoning) + 1 + min(most, len(answer))
    assert output.answer == tokenizer.decode(answer[:most]).lstrip("\n")
    assert not output.stopped


def test_a_limit_does_not_count_a_reasoning_tag_of_the_models_own(tokenizer: Tokenizer) -> None:
    ids = [NEWLINE, NEWLINE, THINK, *tokenizer.encode("so"), END_THINK, *tokenizer.encode("a b c")]
    output = split(tokenizer, [ids], begin=Begin.EITHER, answer_tokens_max=2)
    assert (output.answer, output.exhausted) == ("a b", True)


def test_a_limit_counts_a_tool_call(tokenizer: Tokenizer) -> None:
    call = [CALLS, CALL, *tokenizer.encode("function"), SEP, *tokenizer.encode("f\n```json\n{}")]
    output = split(tokenizer, [[*tokenizer.encode("so"), *call]], answer_tokens_max=4)
    assert output.exhausted
    assert output.completion_tokens == 5


@given(ids=any_ids, begin=st.sampled_from([Begin.ANSWER_ON, Begin.THOUGHT_ON]))
def test_without_tools_their_marks_are_text(
    tokenizer: Tokenizer, ids: list[int], begin: Begin
) -> None:
    ids = [id_ for id_ in ids if id_ != END_THINK]
    output = split(tokenizer, [ids], begin=begin, tools=False)
    whole = tokenizer.decode(ids)
    assert output.text == (whole if begin is Begin.ANSWER_ON else whole.rstrip("\n"))
    assert output.calls == []


def test_answering_begins_with_the_answer_and_lasts(tokenizer: Tokenizer) -> None:
    splitter = Splitter(tokenizer, begin=Begin.EITHER)
    seen = []
    for id_ in [NEWLINE, THINK, *tokenizer.encode("so"), END_THINK, *tokenizer.encode("a"), CALLS]:
        splitter.push([id_])
        seen.append(splitter.answering)
    assert seen == [False, False, False, True, True, True]
