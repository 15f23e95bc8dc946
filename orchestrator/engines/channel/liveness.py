"""A connection's phase, and when its peer counts as lost: silent, or not reading, for too long."""

from enum import Enum

from orchestrator.engines.channel.limits import ChannelLimits


class Phase(Enum):
    """Where a connection is in its life."""

    HELLO = "hello"  # the engine has not said welcome
    OPEN = "open"
    CLOSED = "closed"


class Liveness:
    """Keeps the instants of one connection's side, no clock; ask `lapse` about every heartbeat.

    Only time in which this side was awake counts: if it was stopped itself, the peer's bytes lie
    unread in the socket, and calling the peer lost would be wrong.
    """

    def __init__(self, limits: ChannelLimits, now: float) -> None:
        self._limits = limits
        self._lost_at = now + limits.lost_after_s
        self._unread_at: float | None = None  # when a peer that does not read counts as lost
        self._lapse_at = now
        self._beat_at = now

    @property
    def paused(self) -> bool:
        """The peer reads more slowly than we write: nothing is to be sent."""
        return self._unread_at is not None

    def heard(self, now: float) -> None:
        """Bytes came."""
        self._lost_at = now + self._limits.lost_after_s

    def pause(self, now: float) -> None:
        """Our write buffer is full."""
        self._unread_at = now + self._limits.lost_after_s

    def resume(self) -> None:
        """Our write buffer has room again."""
        self._unread_at = None

    def beat_due(self, now: float) -> bool:
        """Whether a heartbeat is to be sent now; the next is due `heartbeat_s` later."""
        if now < self._beat_at:
            return False
        self._beat_at = now + self._limits.heartbeat_s
        return True

    def lapse(self, now: float) -> str | None:
        """Why the peer is lost, in one sentence, or None."""
        asleep_s = now - self._lapse_at - 2 * self._limits.heartbeat_s
        self._lapse_at = now
        if asleep_s > 0:
            self._lost_at += asleep_s
            if self._unread_at is not None:
                self._unread_at += asleep_s
        if now >= self._lost_at:
            return f"the peer was silent for {self._limits.lost_after_s:g} s"
        if self._unread_at is not None and now >= self._unread_at:
            return f"the peer did not read for {self._limits.lost_after_s:g} s"
        return None
