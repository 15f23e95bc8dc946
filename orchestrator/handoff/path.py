"""Where one request's prompt is prefilled."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import FleetView, Role
from orchestrator.routing import Prices, Way
from orchestrator.spec import HandoffSpec


class Path(StrEnum):
    """How the prompt's KV reaches the rank that decodes."""

    IN_PLACE = "in_place"  # the decoding rank computes it
    TRANSFER = "transfer"  # a prefill rank computes it, the decode rank pulls it


class Reason(StrEnum):
    """Why that path."""

    UNIFIED_POOL = "unified_pool"  # there is no prefill pool
    SHORT_PROMPT = "short_prompt"  # a transfer would cost more than the prefill
    LONG_PROMPT = "long_prompt"  # the prefill would stall running decodes
    DEAR_TRANSFER = "dear_transfer"  # by predicted seconds
    LATE_ELSEWHERE = "late_elsewhere"  # prefill ranks are behind, and here is room
    NO_PREFILL_RANK = "no_prefill_rank"  # none can be reached: better slow than not at all


@dataclass(frozen=True, slots=True)
class PathChoice:
    """The path and its reason."""

    path: Path
    reason: Reason


def choose_path(
    spec: HandoffSpec, view: FleetView, decoder: Role, tokens: int, prices: Prices | None = None
) -> PathChoice:
    """The path for a prompt of `tokens` tokens, given the role that decodes and the ranks seen.

    Without `prices` (nobody knows this engine's costs) every prompt that is not short is moved.
    """
    if decoder is Role.UNIFIED:
        return PathChoice(Path.IN_PLACE, Reason.UNIFIED_POOL)
    if tokens <= spec.in_place_max_tokens:
        return PathChoice(Path.IN_PLACE, Reason.SHORT_PROMPT)
    if not view.of(Role.PREFILL):
        return PathChoice(Path.IN_PLACE, Reason.NO_PREFILL_RANK)
    if prices is not None and prices.way in {Way.IN_PLACE, Way.RECOMPUTE}:
        return PathChoice(Path.IN_PLACE, Reason.DEAR_TRANSFER)
    if prices is not None and prices.way is Way.IN_TIME:
        return PathChoice(Path.IN_PLACE, Reason.LATE_ELSEWHERE)
    return PathChoice(Path.TRANSFER, Reason.LONG_PROMPT)
