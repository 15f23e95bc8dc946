"""How tokens are drawn and when to stop: fields that chat and plain completion share."""

import re
from dataclasses import dataclass

import msgspec

from orchestrator.engines import Grammar, Sampling
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.rules import Limits
from orchestrator.spec import ModelProfile, SamplingPolicy

STOPS_MAX = 16  # https://api-docs.deepseek.com/api/create-chat-completion
STOP_CHARACTERS_MAX = 1024  # our own: bounds the work per token of looking for them
_SEED_MAX = 2**63 - 1  # what engines take
_USER_ID = re.compile(r"[A-Za-z0-9_-]{1,512}")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class DrawingFields(msgspec.Struct, kw_only=True):
    """As they stand in a body."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user_id: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """What was asked for, in range; what it does to sampling is the model's affair."""

    max_tokens: int
    temperature: float | None
    top_p: float | None
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    stop: tuple[str, ...]
    logprobs: int | None  # alternatives to report for each token


def check_drawing(raw: DrawingFields, limits: Limits) -> ApiError | None:
    """The first field that is out of range."""
    if not 1 <= _max_tokens(raw, limits) <= limits.max_tokens_max:
        return _out_of_range("max_tokens", f"[1, {limits.max_tokens_max}]")
    if raw.temperature is not None and not 0 <= raw.temperature <= 2:
        return _out_of_range("temperature", "[0, 2.0]")
    if raw.top_p is not None and not 0 < raw.top_p <= 1:
        return _out_of_range("top_p", "(0, 1.0]")
    for name, penalty in (
        ("presence_penalty", raw.presence_penalty),
        ("frequency_penalty", raw.frequency_penalty),
    ):
        if penalty is not None and not -2 <= penalty <= 2:
            return _out_of_range(name, "[-2.0, 2.0]")
    if raw.n not in (None, 1):
        return bad_request("Invalid n value (currently only n = 1 is supported)")
    if raw.seed is not None and not -_SEED_MAX <= raw.seed <= _SEED_MAX:
        return _out_of_range("seed", f"[-{_SEED_MAX}, {_SEED_MAX}]")
    stop = _stops(raw.stop)
    if len(stop) > STOPS_MAX or any(len(text) > STOP_CHARACTERS_MAX for text in stop):
        return bad_request(
            f"Invalid stop value, there may be {STOPS_MAX} strings of {STOP_CHARACTERS_MAX} "
            "characters at most"
        )
    if raw.user_id is not None and not _USER_ID.fullmatch(raw.user_id):
        return bad_request("Invalid user_id value, it must match [A-Za-z0-9_-]{1,512}")
    return None


def check_stream(raw: DrawingFields) -> ApiError | None:
    """Whether the options of a stream come with one."""
    if raw.stream_options is not None and not raw.stream:
        return bad_request("stream_options should be set along with stream = true")
    return None


def drawing_of(raw: DrawingFields, limits: Limits, logprobs: int | None) -> Drawing:
    """The checked fields in one form."""
    return Drawing(
        max_tokens=_max_tokens(raw, limits),
        temperature=raw.temperature,
        top_p=raw.top_p,
        presence_penalty=raw.presence_penalty or 0.0,
        frequency_penalty=raw.frequency_penalty or 0.0,
        seed=raw.seed,
        stop=_stops(raw.stop),
        logprobs=logprobs,
    )


def sampling_of(
    drawing: Drawing,
    profile: ModelProfile,
    *,
    honor_sampling: bool,
    max_tokens: int,
    stop_token_ids: tuple[int, ...],
    grammar: Grammar | None = None,
) -> Sampling:
    """What the engine is told: the model's own values, unless its policy leaves them to clients."""
    asked = (drawing.temperature, drawing.top_p)
    temperature, top_p = (
        default if value is None else value
        for value, default in zip(asked, (profile.temperature, profile.top_p), strict=True)
    )
    penalties = (drawing.presence_penalty, drawing.frequency_penalty)
    match profile.sampling:
        case SamplingPolicy.FIXED if not honor_sampling:
            temperature, top_p, penalties = profile.temperature, profile.top_p, (0.0, 0.0)
        case SamplingPolicy.MAPPED:
            temperature = 0.3 * temperature if temperature <= 1 else temperature - 0.7
        case _:
            pass
    return Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=drawing.seed,
        stop_token_ids=stop_token_ids,
        presence_penalty=penalties[0],
        frequency_penalty=penalties[1],
        logprobs=drawing.logprobs,
        grammar=grammar,
    )


def _max_tokens(raw: DrawingFields, limits: Limits) -> int:
    for asked in (raw.max_tokens, raw.max_completion_tokens):
        if asked is not None:
            return asked
    return limits.max_tokens_default


def _stops(raw: str | list[str] | None) -> tuple[str, ...]:
    stops = [raw] if isinstance(raw, str) else raw or []
    return tuple(stop for stop in stops if stop)  # an empty string cannot stop anything


def _out_of_range(name: str, valid: str) -> ApiError:
    return bad_request(f"Invalid {name} value, the valid range of {name} is {valid}")
