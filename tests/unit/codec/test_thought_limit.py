"""Where a thought is closed that its engine did not close."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec import Begin, ControlIds, ThoughtLimit
from orchestrator.core import token_ids

THINK, END, CALLS = 900, 901, 902
CONTROL = ControlIds(0, 1, 2, 3, THINK, END, CALLS)
OPENED = token_ids((0, 2, 50, 3, THINK, 60))  # one id of the thought is the prompt's


def limit(tokens_max: int, begin: Begin = Begin.THOUGHT, ids: object = OPENED) -> ThoughtLimit:
    return ThoughtLimit(CONTROL, ids, begin, tokens_max)  # type: ignore[arg-type]


def closed_after(it: ThoughtLimit, ids: list[int], size: int = 1) -> int | None:
    """How many ids stay, told in pushes of `size`."""
    kept = 0
    for at in range(0, len(ids), size):
        part = ids[at : at + size]
        if (cut := it.cut(part)) is not None:
            return kept + cut
        kept += len(part)
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_thought_is_closed_where_an_engine_that_keeps_budgets_closes_it(size: int) -> None:
    assert closed_after(limit(5), [7] * 10, size) == 4, "the prompt has one already"
    assert closed_after(limit(5), [7] * 4 + [END, 8, 8, 8], size) is None
    assert closed_after(limit(1), [7] * 3, size) == 0


def test_a_call_of_a_tool_closes_it_too_and_nothing_opens_it_again() -> None:
    for mark in (END, CALLS):
        assert closed_after(limit(3), [7, mark, THINK] + [8] * 20) is None


def test_a_thought_that_the_model_opens_counts_from_there() -> None:
    either = token_ids((0, 2, 50, 3))
    assert closed_after(limit(3, Begin.EITHER, either), [201, THINK] + [7] * 9) == 5
    assert closed_after(limit(3, Begin.EITHER, either), [7] * 9) is None
    late = [7] * 4 + [THINK] + [7] * 9
    assert closed_after(limit(3, Begin.EITHER, either), late) is None, "a mark in an answer is text"


@pytest.mark.parametrize("begin", [Begin.ANSWER, Begin.ANSWER_ON])
def test_an_answer_has_no_thought_to_close(begin: Begin) -> None:
    assert closed_after(limit(1, begin), [7] * 9) is None


@given(
    st.lists(st.sampled_from([7, 8, 201, THINK, END, CALLS]), max_size=40),
    st.integers(1, 12),
    st.integers(1, 7),
)
def test_however_the_ids_are_cut_the_thought_is_closed_at_the_same_place(
    ids: list[int], tokens_max: int, size: int
) -> None:
    for begin in (Begin.THOUGHT, Begin.EITHER):
        once = closed_after(limit(tokens_max, begin), ids, len(ids) or 1)
        assert closed_after(limit(tokens_max, begin), ids, size) == once
        if once is not None:
            assert END not in ids[:once]
            assert once <= tokens_max + (5 if begin is Begin.EITHER else 0)
