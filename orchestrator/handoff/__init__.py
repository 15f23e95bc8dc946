"""One request's passage prefill -> KV transfer -> decode."""

from orchestrator.handoff.events import (
    Abort,
    Action,
    Begun,
    Cancelled,
    Choose,
    Emit,
    Ended,
    Event,
    Finished,
    Moved,
    NotRouted,
    Pair,
    Pinned,
    Release,
    Routed,
    Send,
    Tokens,
    Woken,
)
from orchestrator.handoff.handoff import Handoff
from orchestrator.handoff.path import Path, PathChoice, Reason, choose_path
from orchestrator.handoff.quarantine import Quarantine, digest_of

__all__ = [
    "Abort",
    "Action",
    "Begun",
    "Cancelled",
    "Choose",
    "Emit",
    "Ended",
    "Event",
    "Finished",
    "Handoff",
    "Moved",
    "NotRouted",
    "Pair",
    "Path",
    "PathChoice",
    "Pinned",
    "Quarantine",
    "Reason",
    "Release",
    "Routed",
    "Send",
    "Tokens",
    "Woken",
    "choose_path",
    "digest_of",
]
