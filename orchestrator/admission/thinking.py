"""How long a request may think: the smallest budget that applies, with room for the answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.spec import ThinkingLimits, ThinkingSpec

# Behind the soft budget, where no hard one is given: an engine that keeps budgets has closed the
# thought by then, also if it draws several tokens in a step.
HARD_SLACK_TOKENS = 64


class BudgetReason(StrEnum):
    """Whose the soft budget is."""

    ASKED = "asked"  # the client's own, by `reasoning_effort` or the profile
    EVERYBODY = "everybody"
    CLASS = "class"
    TENANT = "tenant"
    LOAD = "load"
    ROOM = "room"  # what `max_tokens` leaves when the answer has its room


@dataclass(frozen=True, slots=True)
class ThinkingCase:
    """One request that thinks. `max_tokens` are of thought and answer together; `load` is requests
    held and waiting, for each slot.
    """

    max_tokens: int
    asked_tokens: int | None = None
    class_tokens: int | None = None
    tenant: ThinkingLimits = field(default_factory=ThinkingLimits)
    load: float = 0.0
    # Of `max_tokens`, that the profile gives to the answer alone; None: as the spec says.
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """The engine is asked to close the thought after `soft_tokens`, and the gateway closes it after
    `hard_tokens`, which are no fewer.
    """

    soft_tokens: int
    hard_tokens: int
    reason: BudgetReason


def thinking_budget(spec: ThinkingSpec, case: ThinkingCase) -> ThinkingBudget | None:
    """The budget of a request's thought; None if nobody has set any.

    Of several equal ones the reason is the first in the order of `BudgetReason`. The soft budget
    never grows with load, and what both leave of `max_tokens` is room for the answer.
    """
    softs = list(_softs(spec, case))
    hards = [n for n in (spec.hard_tokens, case.tenant.hard_tokens) if n is not None]
    if not softs and not hards:
        return None
    if hards:
        whose = BudgetReason.EVERYBODY if spec.hard_tokens == min(hards) else BudgetReason.TENANT
        softs.append((min(hards), whose))
    most = _most(spec, case)
    softs.append((most, BudgetReason.ROOM))
    order = list(BudgetReason)
    soft, reason = min(softs, key=lambda each: (each[0], order.index(each[1])))
    hard = min([most, *(hards or [soft + HARD_SLACK_TOKENS])])
    return ThinkingBudget(soft, hard, reason)


def _softs(spec: ThinkingSpec, case: ThinkingCase) -> Iterator[tuple[int, BudgetReason]]:
    for tokens, reason in (
        (case.asked_tokens, BudgetReason.ASKED),
        (spec.soft_tokens, BudgetReason.EVERYBODY),
        (case.class_tokens, BudgetReason.CLASS),
        (case.tenant.soft_tokens, BudgetReason.TENANT),
    ):
        if tokens is not None:
            yield tokens, reason
    for level in spec.levels:
        if case.load >= level.load:
            yield level.soft_tokens, BudgetReason.LOAD


def _most(spec: ThinkingSpec, case: ThinkingCase) -> int:
    """What a thought may have at most, so that the answer and the mark before it have room."""
    if case.answer_tokens is not None:
        return max(1, case.max_tokens - case.answer_tokens)
    room = min(spec.answer_tokens, case.max_tokens // 2)
    return max(1, case.max_tokens - room - 1)
