"""Which rank serves a request: the one with the fewest tokens in flight."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import FleetView, RankId, RankView, Role


class Reason(StrEnum):
    """Why a rank was chosen, or none."""

    ONLY_RANK = "only_rank"
    LEAST_TOKENS = "least_tokens"
    NO_RANK = "no_rank"  # none of that role can be reached
    ALL_FULL = "all_full"  # every rank of that role has its requests_max
    ALL_EXCLUDED = "all_excluded"  # every rank left has failed this request before


@dataclass(frozen=True, slots=True)
class Choice:
    """The rank to send the request to."""

    rank_id: RankId
    reason: Reason


@dataclass(frozen=True, slots=True)
class NoRank:
    """No rank can take the request now; waiting may help."""

    reason: Reason


def choose_rank(view: FleetView, role: Role, excluded: Collection[RankId] = ()) -> Choice | NoRank:
    """The rank of `role` with the fewest tokens in flight, among those not `excluded`.

    Reads the gateway's own ledger first, which is exact for its own requests and never stale, then
    the rank's own count of waiting requests, which is a heartbeat old and shows the load that other
    gateways put there. Ties go to the smallest id, so that equal views give equal answers.
    """
    ranks = view.of(role)
    if not ranks:
        return NoRank(Reason.NO_RANK)
    allowed = [rank for rank in ranks if rank.rank_id not in excluded]
    if not allowed:
        return NoRank(Reason.ALL_EXCLUDED)
    free = [rank for rank in allowed if rank.in_flight_requests < rank.requests_max]
    if not free:
        return NoRank(Reason.ALL_FULL)
    best = min(free, key=_load)
    return Choice(best.rank_id, Reason.ONLY_RANK if len(ranks) == 1 else Reason.LEAST_TOKENS)


def _load(rank: RankView) -> tuple[int, int, RankId]:
    return (rank.in_flight_tokens, rank.engine_waiting, rank.rank_id)
