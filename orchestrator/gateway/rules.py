"""What the official API took and refused at the time that a profile is named after.

Sources: https://api-docs.deepseek.com/updates (change log) and /guides/reasoning_model as of
February 2025, June 2025 and December 2025.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from orchestrator.spec import ApiProfile, ApiSpec, ModelSpec


class ReasoningInput(Enum):
    """What `reasoning_content` in an earlier assistant message is, if the API is strict."""

    REFUSED = auto()
    REQUIRED_IN_TOOL_LOOP = auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """What one profile says of models that think. `strict` adds what leniency would overlook."""

    strict: bool
    context_tokens: int  # prompt and `max_tokens` together
    answer_only: bool  # `max_tokens` bounds the answer; the thought has a bound of its own
    tools: bool
    json_object: bool
    alternating: bool  # user and assistant must take turns
    reasoning_input: ReasoningInput
    switch: bool  # `thinking` and `reasoning_effort` mean something


THOUGHT_TOKENS_MAX = 32_768  # deepseek-2501: of the thought, beside `max_tokens`
_ANSWER_TOKENS = (4_096, 8_192)  # deepseek-2501: default and maximum

_LAUNCH = Rules(
    strict=False,
    context_tokens=65_536,
    answer_only=True,
    tools=False,
    json_object=False,
    alternating=True,
    reasoning_input=ReasoningInput.REFUSED,
    switch=False,
)
_R1_0528 = replace(
    _LAUNCH,
    context_tokens=131_072,  # 64K of context, and the output was not counted in it: up to 64K
    answer_only=False,
    tools=True,
    json_object=True,
    alternating=False,
)
_PROFILES: Mapping[ApiProfile, Rules] = {
    ApiProfile.DEEPSEEK_2501: _LAUNCH,
    ApiProfile.DEEPSEEK_2505: _R1_0528,
    ApiProfile.DEEPSEEK_2512: replace(
        _R1_0528, reasoning_input=ReasoningInput.REQUIRED_IN_TOOL_LOOP, switch=True
    ),
}


def rules_of(api: ApiSpec) -> Rules:
    """The rules of the profile that the operator chose."""
    return replace(_PROFILES[api.profile], strict=api.strict)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one model takes under one profile, in tokens.

    `thought_tokens` is what the engine may generate beyond `max_tokens`.
    """

    context_tokens: int
    max_tokens_default: int
    max_tokens_max: int
    thought_tokens: int = 0


def limits_of(model: ModelSpec, rules: Rules) -> Limits:
    """The official limits, lowered to what a model with a shorter context can hold."""
    profile = model.profile
    context = min(model.max_model_len, profile.context_tokens, rules.context_tokens)
    default, most, thought = profile.max_tokens_default, profile.max_tokens_max, 0
    if profile.thinks and rules.answer_only:
        default, most = _ANSWER_TOKENS
        thought = min(THOUGHT_TOKENS_MAX, model.max_model_len // 2)
        context = min(context, model.max_model_len - thought)
    return Limits(context, min(default, context // 2), min(most, context), thought)
