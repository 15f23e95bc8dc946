"""Which budget a thought gets."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import (
    HARD_SLACK_TOKENS,
    BudgetReason,
    ThinkingBudget,
    ThinkingCase,
    thinking_budget,
)
from orchestrator.spec import LoadLevel, ThinkingLimits, ThinkingSpec

CASE = ThinkingCase(32_768)
SHORT = ThinkingSpec(levels=(LoadLevel(0.9, 8_192), LoadLevel(1.5, 2_048)))


def test_nobody_who_sets_no_budget_gets_one() -> None:
    assert thinking_budget(ThinkingSpec(), CASE) is None
    assert thinking_budget(SHORT, replace(CASE, load=0.89)) is None


@pytest.mark.parametrize(
    ("spec", "case", "soft", "reason"),
    [
        (ThinkingSpec(), replace(CASE, asked_tokens=4_096), 4_096, BudgetReason.ASKED),
        (ThinkingSpec(20_000), CASE, 20_000, BudgetReason.EVERYBODY),
        (ThinkingSpec(20_000), replace(CASE, class_tokens=900), 900, BudgetReason.CLASS),
        (
            ThinkingSpec(20_000),
            replace(CASE, tenant=ThinkingLimits(7_000), asked_tokens=16_384),
            7_000,
            BudgetReason.TENANT,
        ),
        (SHORT, replace(CASE, load=0.9), 8_192, BudgetReason.LOAD),
        (SHORT, replace(CASE, load=7.0), 2_048, BudgetReason.LOAD),
        (SHORT, replace(CASE, load=7.0, asked_tokens=100), 100, BudgetReason.ASKED),
        (ThinkingSpec(100_000), CASE, 32_768 - 1_024 - 1, BudgetReason.ROOM),
        (ThinkingSpec(100), replace(CASE, max_tokens=50), 24, BudgetReason.ROOM),
        (ThinkingSpec(hard_tokens=500), CASE, 500, BudgetReason.EVERYBODY),
    ],
)
def test_the_smallest_one_holds_and_says_whose_it_is(
    spec: ThinkingSpec, case: ThinkingCase, soft: int, reason: BudgetReason
) -> None:
    budget = thinking_budget(spec, case)
    assert budget is not None
    assert (budget.soft_tokens, budget.reason) == (soft, reason)


def test_the_hard_one_is_given_or_a_little_behind_the_soft_one() -> None:
    asked = replace(CASE, asked_tokens=1_000)
    for spec, hard in (
        (ThinkingSpec(), 1_000 + HARD_SLACK_TOKENS),
        (ThinkingSpec(hard_tokens=1_500), 1_500),
    ):
        assert thinking_budget(spec, asked) == ThinkingBudget(1_000, hard, BudgetReason.ASKED)


def test_an_answer_with_tokens_of_its_own_keeps_all_of_them() -> None:
    case = ThinkingCase(32_768 + 5, asked_tokens=32_768, answer_tokens=5)
    assert thinking_budget(ThinkingSpec(), case) == ThinkingBudget(
        32_768, 32_768, BudgetReason.ASKED
    )


tokens = st.integers(1, 70_000)
maybe = st.none() | tokens


@given(
    st.builds(ThinkingSpec, maybe, maybe, st.integers(0, 4_096), st.just(SHORT.levels)),
    st.builds(
        ThinkingCase,
        tokens,
        maybe,
        maybe,
        st.builds(ThinkingLimits, maybe, maybe),
        st.floats(0, 3),
    ),
)
def test_no_budget_takes_the_answers_room_and_load_makes_none_longer(
    spec: ThinkingSpec, case: ThinkingCase
) -> None:
    budget = thinking_budget(spec, case)
    calm = thinking_budget(spec, replace(case, load=0.0))
    if budget is None:
        assert calm is None
        return
    assert 1 <= budget.soft_tokens <= budget.hard_tokens
    if case.max_tokens > 2:
        room = min(spec.answer_tokens, case.max_tokens // 2)
        assert budget.hard_tokens + 1 + room <= case.max_tokens
    if calm is not None:
        assert budget.soft_tokens <= calm.soft_tokens
        assert budget.hard_tokens <= calm.hard_tokens
