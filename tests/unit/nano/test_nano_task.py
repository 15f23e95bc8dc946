"""What r1-nano is trained on: right answers, honest thoughts, and problems kept for judging."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.nano.task import (
    SMALL,
    WIDE,
    Numbers,
    add_thought,
    as_json,
    follow_up,
    held_out,
    multiply_thought,
    problem,
    subtract_thought,
)

SUMS = re.compile(r"(\d+(?: [-+*] \d+)+) = (\d+)")


def check_sums(thought: str) -> None:
    for left, right in SUMS.findall(thought):
        assert eval(left) == int(right), thought  # digits and operators only


@given(st.integers(0, 999), st.integers(0, 999))
def test_every_step_of_a_sum_is_right_and_the_last_line_has_the_result(a: int, b: int) -> None:
    thought = add_thought(a, b)
    check_sums(thought)
    assert thought.endswith(f", so {a + b}.")
    high, low = max(a, b), min(a, b)
    thought = subtract_thought(high, low)
    check_sums(thought)
    assert thought.endswith(f", so {high - low}.")


@given(st.integers(0, 999), st.integers(0, 9))
def test_every_step_of_a_product_is_right(a: int, b: int) -> None:
    thought = multiply_thought(a, b)
    check_sums(thought)
    assert thought.endswith(f", so {a * b}.")


@pytest.mark.parametrize(
    ("kind", "numbers"), [(kind, numbers) for numbers in (WIDE, SMALL) for kind in numbers.shares]
)
def test_answers_say_the_value_and_what_is_judged_is_never_trained_on(
    kind: str, numbers: Numbers
) -> None:
    chance = Random(kind)
    for judged in (True, False):
        for _ in range(50):
            asked = problem(chance, kind, numbers, judged=judged)
            assert held_out(kind, asked.numbers) is judged
            check_sums(asked.thought)
            assert str(asked.value) in asked.answer
            assert str(asked.value) in as_json(asked).answer
            if isinstance(asked.value, int):
                assert 0 <= asked.value <= numbers.most


@given(st.integers(0, 199), st.randoms(use_true_random=False))
def test_a_follow_up_goes_on_from_the_number_before(before: int, chance: Random) -> None:
    asked = follow_up(chance, before, SMALL)
    assert isinstance(asked.value, int)
    assert 0 <= asked.value <= SMALL.most
    check_sums(asked.thought)
    assert asked.answer.startswith(f"{before} ")
