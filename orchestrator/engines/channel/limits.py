"""The bounds of a token channel: time, requests, bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds that each side keeps for itself; of `max_requests` and `max_frame_bytes` the gateway
    uses the smaller of its own and the engine's, which `Welcome` tells it.

    `lost_after_s` must leave room for some heartbeats. A connection is cut when its peer was
    silent, or did not read, for that long; a cancelled request waits no longer for its end.
    """

    heartbeat_s: float = 1.0
    lost_after_s: float = 10.0
    connect_s: float = 5.0  # TCP connection and handshake together
    reconnect_min_s: float = 0.1  # the first pause before a new attempt; doubles up to ...
    reconnect_max_s: float = 2.0
    max_requests: int = 1024  # open at once on one connection
    max_frame_bytes: int = 4 * 2**20  # a prompt of 163840 ids takes at most 5 bytes for each
    high_water_bytes: int = 256 * 2**10  # unsent bytes above which the engine coalesces tokens
    max_unsent_bytes: int = 64 * 2**20  # unsent bytes above which the gateway's submits fail

    def __post_init__(self) -> None:
        assert 0 < self.heartbeat_s < self.lost_after_s, "a peer must be heard before it is lost"
        assert 0 < self.reconnect_min_s <= self.reconnect_max_s
        assert self.max_requests > 0
        assert self.high_water_bytes > 0
        assert self.max_frame_bytes >= 1024, "the smallest frames must fit"
