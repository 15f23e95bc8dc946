import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import Begin, Tokenizer
from orchestrator.spec import TemplateKind
from tests.unit.codec.outputs import Output, cut, split

THINK, END_THINK = 128798, 128799
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]

# Texts as R1-Zero may write them: tags whole and in part, blanks, words.
texts = st.lists(
    st.sampled_from([*TAGS, "<", "</", "think", "answer", ">", " ", "\n", "\n\n", "so", "a b"]),
    max_size=12,
).map("".join)
stop_strings = st.lists(st.sampled_from(["\n", "a", "</think>", "so", " b"]), max_size=2)
words = st.text(st.sampled_from("ab \n"), min_size=1, max_size=8).map(lambda t: f"x{t}x")


def zero(
    tokenizer: Tokenizer,
    text: str | list[int],
    begin: Begin = Begin.EITHER,
    *,
    stop: tuple[str, ...] = (),
    answer_tokens_max: int | None = None,
) -> Output:
    ids = tokenizer.encode(text) if isinstance(text, str) else text
    return split(
        tokenizer,
        [ids],
        template=TemplateKind.R1_ZERO,
        begin=begin,
        stop=stop,
        answer_tokens_max=answer_tokens_max,
    )


@given(
    ids=st.lists(st.integers(0, 129_279) | st.sampled_from([THINK, END_THINK]), max_size=12),
    text=texts,
    cuts=st.lists(st.integers(0, 40)),
    begin=st.sampled_from(Begin),
    stop=stop_strings,
    answer_tokens_max=st.none() | st.integers(1, 9),
)
def test_the_output_does_not_depend_on_the_chunks(
    tokenizer: Tokenizer,
    ids: list[int],
    text: str,
    cuts: list[int],
    begin: Begin,
    stop: list[str],
    answer_tokens_max: int | None,
) -> None:
    ids = tokenizer.encode(text) + ids

    def output(chunks: list[list[int]]) -> Output:
        return split(
            tokenizer,
            chunks,
            template=TemplateKind.R1_ZERO,
            begin=begin,
            stop=stop,
            answer_tokens_max=answer_tokens_max,
        )

    assert output([list(c) for c in cut(ids, cuts)]) == output([[i] for i in ids]) == output([ids])


@given(text=texts, begin=st.sampled_from(Begin))
def test_it_does_not_matter_how_the_text_is_spelled(
    tokenizer: Tokenizer, text: str, begin: Begin
) -> None:
    letters = [id_ for letter in text for id_ in tokenizer.encode(letter)]
    spelled, whole = zero(tokenizer, letters, begin), zero(tokenizer, text, begin)
    assert (spelled.reasoning, spelled.answer) == (whole.reasoning, whole.answer)


@given(reasoning=words, answer=words, between=st.sampled_from(["", " ", "\n\n"]))
@pytest.mark.parametrize("begin", [Begin.THOUGHT, Begin.EITHER])
def test_reads_the_form_it_was_trained_on(
    tokenizer: Tokenizer, begin: Begin, reasoning: str, answer: str, between: str
) -> None:
    opening = f"{between}<think>" if begin is Begin.EITHER else ""
    text = (
        f"{opening} {reasoning}{between}</think>{between}"
        f"<answer> {answer}{between}</answer>\nUser: more"
    )
    output = zero(tokenizer, text, begin)
    assert (output.reasoning, output.answer) == (reasoning, answer)
    assert output.stopped
    assert output.completion_tokens < len(tokenizer.encode(text))


@pytest.mark.parametrize(
    ("begin", "text", "reasoning", "answer"),
    [
        (Begin.EITHER, "just so", "", "just so"),  # no tags at all
        (Begin.EITHER, " <answer> so </answer>", "", "so"),
        (Begin.EITHER, "</think> so", "", "so"),
        (Begin.THOUGHT, "<think> so </think> yes", "so", "yes"),  # opened twice
        (Begin.THOUGHT, "so, I use <answer> tags </think> yes", "so, I use <answer> tags", "yes"),
        (Begin.THOUGHT, "so \n", "so", ""),  # cut short
        (Begin.THOUGHT, "so </thi", "so </thi", ""),
        (Begin.THOUGHT, "so </think> <answ", "so", "<answ"),
        (Begin.THOUGHT, "so </think> <answer> yes </answ", "so", "yes </answ"),
        (Begin.THOUGHT, "so </think> <answer> yes \n", "so", "yes \n"),
        (Begin.THOUGHT_ON, "\n so</think>yes", "\n so", "yes"),
        (Begin.ANSWER, "<answer> yes </answer>", "", "yes"),
        (Begin.ANSWER, " yes </answer>", "", "yes"),
        (Begin.ANSWER_ON, " yes <answer> no </answer>", "", " yes <answer> no"),
        (Begin.EITHER, "<th", "", "<th"),
        (Begin.EITHER, " \n", "", ""),
    ],
)
def test_tags_count_where_their_parts_begin_and_end(
    tokenizer: Tokenizer, begin: Begin, text: str, reasoning: str, answer: str
) -> None:
    output = zero(tokenizer, text, begin)
    assert (output.reasoning, output.answer) == (reasoning, answer)
    assert output.stopped == text.endswith("</answer>")


def test_tags_may_be_single_tokens(tokenizer: Tokenizer) -> None:
    so = tokenizer.encode(" so ")
    output = zero(tokenizer, [THINK, *so, END_THINK, *tokenizer.encode("<answer> yes </answer>")])
    assert (output.reasoning, output.answer) == ("so", "yes")
    assert output.reasoning_tokens == len(so) + 1


def test_a_stop_string_applies_to_the_answer_only(tokenizer: Tokenizer) -> None:
    output = zero(tokenizer, "END so</think>yes END", Begin.THOUGHT, stop=("END",))
    assert (output.reasoning, output.answer, output.stopped) == ("END so", "yes ", True)


def test_a_limit_counts_the_ids_of_the_answer_only(tokenizer: Tokenizer) -> None:
    output = zero(tokenizer, "a b c d e</think>one two three", Begin.THOUGHT, answer_tokens_max=2)
    assert (output.reasoning, output.answer) == ("a b c d e", "one two")
    assert output.exhausted
