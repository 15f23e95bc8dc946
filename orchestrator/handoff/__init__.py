"""One request's passage prefill -> KV transfer -> decode."""

from orchestrator.handoff.handoff import (
    Abort,
    Action,
    Begun,
    Cancelled,
    Choose,
    Emit,
    Ended,
    Event,
    Finished,
    Handoff,
    NotRouted,
    Pinned,
    Routed,
    Send,
    Tokens,
    Woken,
)
from orchestrator.handoff.path import Path, PathChoice, Reason, choose_path

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
    "NotRouted",
    "Path",
    "PathChoice",
    "Pinned",
    "Reason",
    "Routed",
    "Send",
    "Tokens",
    "Woken",
    "choose_path",
]
