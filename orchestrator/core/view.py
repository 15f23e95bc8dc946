"""The fleet as last seen: snapshots that carry the instant they were taken."""

from dataclasses import dataclass

from orchestrator.core.ids import RankId
from orchestrator.core.request import Role


@dataclass(frozen=True, slots=True)
class RankView:
    """One routable rank as one gateway sees it.

    `in_flight_*` come from the gateway's own ledger and are exact for its own requests; the
    `engine_*` numbers are the rank's own, as of its last heartbeat, and count every gateway's.
    """

    rank_id: RankId
    role: Role
    in_flight_requests: int
    in_flight_tokens: int  # prompt plus max_tokens of what this gateway has there
    requests_max: int  # open requests that the rank takes from this gateway
    engine_running: int = 0
    engine_waiting: int = 0


@dataclass(frozen=True, slots=True)
class FleetView:
    """The ranks that can be reached now, in the order of their ids; taken at `seen_at`."""

    ranks: tuple[RankView, ...]
    seen_at: float

    def of(self, role: Role) -> tuple[RankView, ...]:
        """The ranks of one role."""
        return tuple(rank for rank in self.ranks if rank.role is role)
