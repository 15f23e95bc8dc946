"""Routing decisions as lines of the decision log, and back: every one replays from its line."""

from collections.abc import Mapping

import msgspec

from orchestrator.core import FleetView, RankId, Role
from orchestrator.routing import Choice, NoRank, Question, StepCosts, choose_rank
from orchestrator.routing.router import Decision


class _Line(msgspec.Struct):
    """What a line has beside its answer: the whole input."""

    role: Role
    excluded: list[RankId]
    question: Question
    view: FleetView
    costs: StepCosts


def decision_fields(decision: Decision, costs: StepCosts) -> dict[str, object]:
    """The input of a decision, as fields of its line; only the ranks of its role."""
    view = decision.view
    return {
        "role": decision.role,
        "excluded": decision.excluded,
        "question": decision.question,
        "view": FleetView(
            view.of(decision.role), view.seen_at, view.arrivals_per_s, view.output_tokens
        ),
        "costs": costs,
    }


def replay(line: Mapping[str, object]) -> Choice | NoRank:
    """Decides again, from a parsed line. Raises msgspec.ValidationError for any other line."""
    read = msgspec.convert(line, _Line)
    return choose_rank(read.view, read.role, read.question, read.costs, read.excluded)
