"""The kinds of users: what they ask, and how an agent's session grows."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.workload import PROFILES, Workload, constant


@dataclass(frozen=True, slots=True)
class SessionShape:
    """Of sessions whose turns repeat all that was said; tokens.

    Turns are equally likely between 1 and twice the mean less 1.
    """

    turns_mean: int
    system_tokens: int  # the same in all sessions
    first_tokens: int  # of the first prompt, the system's included
    added_tokens: int  # to each next turn, besides the answer
    output_tokens: int
    pause_s: float  # from an answer to the next turn, on average: a tool at work


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of users."""

    workload: Workload
    session: SessionShape | None = None
    thinks_s: float = 0.0  # a person's pause between two requests, closed loop, on average


# With the lengths of a session the mean prompt is 15,325 tokens and 65 % of it was sent before, as
# in the profile, which is Mooncake's synthetic trace; the pause is a choice.
_AGENT = SessionShape(3, 2_048, 12_557, 2_619, 149, 2.0)

KINDS: Mapping[str, Kind] = {
    "chat": Kind(PROFILES["chat"], thinks_s=10.0),
    "reasoning": Kind(PROFILES["reasoning"], thinks_s=10.0),
    "agent": Kind(PROFILES["agent"], _AGENT, thinks_s=2.0),
    "batch": Kind(PROFILES["batch"]),
    "long-context": Kind(
        constant(
            "long-context",
            "half of the 128k window that DeepSeek's API has, and a page of answer; a choice",
            input_tokens=65_536,
            output_tokens=1_024,
        ),
        thinks_s=30.0,
    ),
}
