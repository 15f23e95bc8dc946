"""Decisions as lines of the decision log, and back: every one is made again from its line."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import msgspec

from orchestrator import admission, handoff
from orchestrator.core import FleetView, RankId, RankView, Request, RequestId, Role
from orchestrator.routing import Choice, NoRank, Prices, Question, StepCosts, choose_rank
from orchestrator.routing.router import Decision
from orchestrator.spec import AdmissionSpec, HandoffSpec, ThinkingSpec

# --- routing -------------------------------------------------------------------------------------


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


# --- path ----------------------------------------------------------------------------------------


class _Path(msgspec.Struct):
    prompt_tokens: int
    prefill_ranks: int
    decoder: Role
    in_place_max_tokens: int
    prices: Prices | None = None


def replay_path(line: Mapping[str, object]) -> handoff.PathChoice:
    """Decides again, from a parsed line. Raises msgspec.ValidationError for any other line."""
    read = msgspec.convert(line, _Path)
    spec = replace(HandoffSpec(), in_place_max_tokens=read.in_place_max_tokens)
    ranks = tuple(
        RankView(RankId(str(at)), Role.PREFILL, 0, 0, 1) for at in range(read.prefill_ranks)
    )
    view = FleetView(ranks, 0.0)
    return handoff.choose_path(spec, view, read.decoder, read.prompt_tokens, read.prices)


# --- thinking ------------------------------------------------------------------------------------


class _Thinking(msgspec.Struct):
    case: admission.ThinkingCase
    limits: ThinkingSpec


def replay_thinking(line: Mapping[str, object]) -> admission.ThinkingBudget | None:
    """Decides again, from a parsed line. Raises msgspec.ValidationError for any other line."""
    read = msgspec.convert(line, _Thinking)
    return admission.thinking_budget(read.limits, read.case)


# --- admission -----------------------------------------------------------------------------------


class _Input(msgspec.Struct):
    now: float
    on: str
    request: Request | None = None
    work_s: float = 0.0
    request_id: str = ""
    slots: int = 0


def admission_fields(event: admission.Event) -> dict[str, object]:
    """What came in, as fields of its line."""
    match event:
        case admission.Arrived(request, work_s):
            return {"on": "arrived", "request": request, "work_s": work_s}
        case admission.Left(request_id):
            return {"on": "left", "request_id": request_id}
        case admission.Capacity(slots):
            return {"on": "capacity", "slots": slots}
        case admission.Passed():
            return {"on": "passed"}
        case _:
            assert_never(event)


def admission_limits(line: Mapping[str, object]) -> AdmissionSpec:
    """What a queue was opened with. Raises msgspec.ValidationError for any other line."""
    return msgspec.convert(line.get("limits"), AdmissionSpec)


def admission_input(line: Mapping[str, object]) -> tuple[admission.Event, float]:
    """The event and its instant. Raises msgspec.ValidationError for any other line."""
    read = msgspec.convert(line, _Input)
    match read.on:
        case "arrived" if read.request is not None:
            return admission.Arrived(read.request, read.work_s), read.now
        case "left":
            return admission.Left(RequestId(read.request_id)), read.now
        case "capacity":
            return admission.Capacity(read.slots), read.now
        case "passed":
            return admission.Passed(), read.now
        case _:
            raise msgspec.ValidationError(f"no event of admission: {read.on}")
