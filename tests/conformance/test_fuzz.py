"""Splitters and the tool parser against ids that no model should write, many times over."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.codec import Begin, Mark, Tokenizer
from orchestrator.spec import TemplateKind
from tests.unit.codec.outputs import cut, split

fuzz = settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pytestmark = pytest.mark.timeout(300)

THINK, END_THINK = 128798, 128799
# Text that cannot be a part of the form of a tool call, nor be trimmed.
WORDS = [["Ä"], ["1"], ["€"], ["q", "9"], ["𓀀"]]
# The form of a tool call in parts, and blanks: of these some is left out of the pieces.
FORM = ["function", "\n```json\n", "\n```", "```", "\n", "\n\n", " ", "json\n"]

TAGS = ["<think>", "</think>", "<answer>", "</answer>", "so", " ", "\n", "<", "</th"]

control = st.sampled_from([THINK, END_THINK, 128806, 128807, 128808, 128809, 128814, 0, 1])
newlines = st.sampled_from([201, 271, 223])
any_ids = st.lists(control | newlines | st.integers(0, 129_279), max_size=8)
cuts = st.lists(st.integers(0, 8), max_size=3)
parts = st.lists(
    st.sampled_from(
        [
            *(word for words in WORDS for word in words),
            *FORM,
            Mark.TOOL_CALLS,
            Mark.END_TOOL_CALLS,
            Mark.TOOL_CALL,
            Mark.END_TOOL_CALL,
            Mark.TOOL_SEP,
        ]
    ),
    max_size=10,
)
KEPT = frozenset(letter for words in WORDS for word in words for letter in word)


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def first_tag(ids: list[int]) -> int:
    return next((at for at, id_ in enumerate(ids) if id_ in (THINK, END_THINK)), len(ids))


def reference(tokenizer: Tokenizer, ids: list[int], begin: Begin) -> tuple[str, str]:
    """Reasoning and answer of all `ids` at once, without tools, from the contract."""
    while begin is Begin.THOUGHT or begin is Begin.EITHER:
        at = first_tag(ids)
        if at == len(ids) or not is_blank(tokenizer.decode(ids[:at])):
            break
        if ids[at] == END_THINK:
            if begin is Begin.EITHER:
                ids = ids[at + 1 :]
            break
        begin, ids = Begin.THOUGHT, ids[at + 1 :]
    thought = ""
    if begin is Begin.THOUGHT or begin is Begin.THOUGHT_ON:
        end = ids.index(END_THINK) if END_THINK in ids else len(ids)
        thought, ids = tokenizer.decode(ids[:end]).rstrip("\n"), ids[end + 1 :]
        if begin is Begin.THOUGHT:
            thought = thought.lstrip("\n")
    answer = tokenizer.decode(ids)
    return thought, answer if begin is Begin.ANSWER_ON else answer.lstrip("\n")


@fuzz
@given(ids=any_ids, cuts=cuts, begin=st.sampled_from(Begin))
def test_any_ids_in_any_chunks_are_split_alike_and_lose_but_tags_and_newlines_at_the_ends(
    tokenizer: Tokenizer, ids: list[int], cuts: list[int], begin: Begin
) -> None:
    chunks = cut(ids, cuts)
    whole = split(tokenizer, [ids], begin=begin)
    assert split(tokenizer, chunks, begin=begin) == whole
    assert whole.completion_tokens == len(ids)
    plain = split(tokenizer, chunks, begin=begin, tools=False)
    assert (plain.reasoning, plain.answer) == reference(tokenizer, ids, begin)


@fuzz
@given(
    tags=st.lists(st.sampled_from(TAGS), max_size=6).map("".join),
    ids=st.lists(st.sampled_from([THINK, END_THINK, 201, 223]) | st.integers(3, 999), max_size=6),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    begin=st.sampled_from(Begin),
)
def test_any_ids_in_any_chunks_are_split_alike_for_r1_zero_and_lose_but_tags_and_blanks(
    tokenizer: Tokenizer, tags: str, ids: list[int], cuts: list[int], begin: Begin
) -> None:
    ids = tokenizer.encode(tags) + ids
    zero = TemplateKind.R1_ZERO
    whole = split(tokenizer, [ids], template=zero, begin=begin)
    assert split(tokenizer, cut(ids, cuts), template=zero, begin=begin) == whole
    read = tokenizer.decode(ids[: whole.completion_tokens])
    if whole.stopped:  # what the same token has after the tag belongs to nothing
        read = read[: read.rindex("</answer>")]
    assert without_tags(whole.text) == without_tags(read)


def without_tags(text: str) -> str:
    for tag in TAGS[:4]:
        text = text.replace(tag, "")
    return "".join(text.split())


@fuzz
@given(parts=parts, cuts=st.lists(st.integers(0, 20), max_size=3))
def test_any_block_of_calls_is_read_alike_and_nothing_of_it_is_lost(
    tokenizer: Tokenizer, parts: list[str], cuts: list[int]
) -> None:
    ids = tokenizer.assemble([Mark.TOOL_CALLS, *parts])
    whole = split(tokenizer, [ids], begin=Begin.ANSWER)
    assert split(tokenizer, cut(ids, cuts), begin=Begin.ANSWER) == whole
    kept = [letter for letter in whole.text if letter in KEPT]
    assert kept == [letter for letter in "".join(parts) if letter in KEPT]
