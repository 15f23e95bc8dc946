"""Whether a request goes on where it runs while its gang drains, or continues on another rank.

Moving costs a prefill of all it has so far, and the client a pause; staying holds up the drain. So
what is predicted to end within the drain's time stays, and what is not is moved at once rather than
at the last moment, when it would be longer.
"""

from dataclasses import dataclass
from enum import StrEnum

MOVE_S = 15.0  # for requests to be let go and, above all, for their KV to be computed elsewhere
WATCH_S = 2.0  # that a request is watched for before its pace is believed


class Reason(StrEnum):
    """Why it stays or moves."""

    WATCHED = "watched"  # its pace, or what is usual, is not known yet
    ENDS_IN_TIME = "ends_in_time"
    TOO_LONG = "too_long"  # it will not end within the time that is left
    OUT_OF_TIME = "out_of_time"
    NOWHERE = "nowhere"  # no other rank could go on with it


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is to be moved now, and why."""

    move: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Running:
    """One request on a rank that drains: tokens that it has emitted, those when it was first seen
    there at the instant `seen_at`, the most that it may draw, and those of a usual request (0: not
    known).
    """

    emitted_tokens: int
    seen_tokens: int
    seen_at: float
    max_tokens: int
    usual_tokens: float


def wait_s(asked_s: float, left_s: float | None) -> float:
    """How long what runs may stay: as asked, but no longer than leaves time to move it before the
    nodes are taken away in `left_s`; None: nobody has said that they are.
    """
    return asked_s if left_s is None else max(0.0, min(asked_s, left_s - MOVE_S))


def judge(running: Running, drain_at: float, now: float, *, elsewhere: bool) -> Verdict:
    """What becomes of the request. `drain_at` is when the drain's time is over, `elsewhere` whether
    another rank can take it.
    """
    if not elsewhere:
        return Verdict(False, Reason.NOWHERE)
    if now >= drain_at:
        return Verdict(True, Reason.OUT_OF_TIME)
    if not running.usual_tokens or now < running.seen_at + WATCH_S:
        return Verdict(False, Reason.WATCHED)
    drawn = running.emitted_tokens - running.seen_tokens
    per_s = drawn / (now - running.seen_at)
    if rest_tokens(running) > per_s * (drain_at - now):
        return Verdict(True, Reason.TOO_LONG)
    return Verdict(False, Reason.ENDS_IN_TIME)


def rest_tokens(running: Running) -> float:
    """What it is expected to draw still: as much as a usual request, however much it has drawn, as
    of lengths without memory; thoughts are more spread than that, and what went on for long goes
    on for longer. What it may not exceed bounds it.
    """
    return min(running.max_tokens - running.emitted_tokens, running.usual_tokens)
