"""The fleet as last seen: snapshots that carry the instant they were taken."""

from dataclasses import dataclass

from orchestrator.core.ids import RankId
from orchestrator.core.request import Role


@dataclass(frozen=True, slots=True)
class RankView:
    """One routable rank as one gateway sees it.

    `in_flight_*`, `prefill_*`, `decoding_*` and `sent_at` come from the gateway's own ledger and
    are exact for its own requests; `others_*` are what other gateways have there, as they said or
    as the rank's last report implies; the `engine_*` numbers are the rank's own, as of its last
    report, and count every gateway's. Instants are of the host's monotonic clock; 0 of a size means
    that it is not known.
    """

    rank_id: RankId
    role: Role
    in_flight_requests: int
    in_flight_tokens: int  # prompt plus max_tokens of what this gateway has there
    requests_max: int  # open requests that the rank takes from this gateway
    engine_running: int = 0
    engine_waiting: int = 0
    prefill_free_at: float = 0.0  # when what waits for its first token is predicted to have it
    prefill_rest_s: float = 0.0  # of that, what has not begun: the wait is never less
    prefill_due_at: float = 0.0  # the first token promised first, of what waits for a pass; 0: none
    decoding_requests: int = 0  # had their first token
    decoding_tokens: int = 0  # prompt tokens of those
    others_requests: int = 0
    others_prefill_s: float = 0.0  # predicted prefill work of theirs that is not done
    slots: int = 0  # requests that the engine runs at once
    kv_tokens: int = 0  # tokens that the rank's KV cache holds
    sent_at: float = 0.0  # when this gateway last sent it a request
    reported_at: float = 0.0  # when the rank's last report came


@dataclass(frozen=True, slots=True)
class FleetView:
    """The ranks that can be reached now, in the order of their ids; taken at `seen_at`."""

    ranks: tuple[RankView, ...]
    seen_at: float
    arrivals_per_s: float = 0.0  # requests that the whole fleet gets, as this gateway estimates it
    output_tokens: float = 0.0  # of a usual request; 0: not known

    def of(self, role: Role) -> tuple[RankView, ...]:
        """The ranks of one role."""
        return tuple([rank for rank in self.ranks if rank.role is role])
