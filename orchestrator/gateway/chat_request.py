"""The body of a chat completion request: read, checked, and brought into one form.

Lenient where DeepSeek has been strict at some time (`developer` is `system`, text parts for every
role, `max_completion_tokens`, turns in any order), never silent about what it would change to
ignore a parameter. Fields that DeepSeek does not know are ignored, and null is absence.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.codec import AssistantMessage, Message, SystemMessage, UserMessage
from orchestrator.gateway.errors import ApiError, bad_request, unprocessable

STOPS_MAX = 16  # https://api-docs.deepseek.com/api/create-chat-completion
STOP_CHARACTERS_MAX = 1024  # our own: bounds the work per token of looking for them
_SEED_MAX = 2**63 - 1  # what engines take


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """What a model takes. The defaults are DeepSeek's for R1-0528 and after.

    `context_tokens` is for prompt and output together.
    """

    context_tokens: int = 131_072
    max_tokens_default: int = 32_768
    max_tokens_max: int = 65_536


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion request that is valid but for its length; see `check_context`.

    `temperature` and `top_p` are what was asked for; DeepSeek's reasoner accepts both without
    effect. So it does with the penalties, which are checked and dropped here.
    """

    model: str  # the name that the client used, to be repeated to it
    messages: tuple[Message, ...]
    max_tokens: int  # reasoning included
    temperature: float | None
    top_p: float | None
    stop: tuple[str, ...]
    stream: bool
    seed: int | None


def parse_chat_request(
    body: bytes, models: Collection[str], limits: ChatLimits
) -> ChatRequest | ApiError:
    """The request in `body`, or the first thing wrong with it.

    The order of checks is DeepSeek's: the body's form, the model, ranges, what the model can do.
    """
    raw = _read(body)
    if isinstance(raw, ApiError):
        return raw
    messages: list[Message] = []
    for at, data in enumerate(raw.messages):
        message = _message(data, f"messages[{at}]")
        if isinstance(message, ApiError):
            return message
        messages.append(message)
    if raw.model not in models:
        return bad_request("Model Not Exist")
    stop = _stops(raw.stop)
    error = _check_ranges(raw, stop, limits) or _check_abilities(raw)
    if error is not None:
        return error
    return ChatRequest(
        model=raw.model,
        messages=tuple(messages),
        max_tokens=_max_tokens(raw, limits),
        temperature=raw.temperature,
        top_p=raw.top_p,
        stop=stop,
        stream=bool(raw.stream),
        seed=raw.seed,
    )


def check_context(prompt_tokens: int, max_tokens: int, limits: ChatLimits) -> ApiError | None:
    """Whether prompt and output fit. What was asked for counts, not what will be generated."""
    asked = prompt_tokens + max_tokens
    if asked <= limits.context_tokens:
        return None
    return bad_request(
        f"This model's maximum context length is {limits.context_tokens} tokens. However, you "
        f"requested {asked} tokens ({prompt_tokens} in the messages, {max_tokens} in the "
        "completion). Please reduce the length of the messages or completion."
    )


# What the body may hold: only the fields that mean something to us, all but two optional.


class _Typed(msgspec.Struct):
    type: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    prefix: bool | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    thinking: _Typed | None = None
    response_format: _Typed | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: str | dict[str, msgspec.Raw] | None = None


_body = msgspec.json.Decoder(_Body)
_one_message = msgspec.json.Decoder(_Message)


def _read(body: bytes) -> _Body | ApiError:
    try:
        return _body.decode(body)
    except _UNREADABLE as error:
        return _unreadable(error, "")


def _message(data: msgspec.Raw, path: str) -> Message | ApiError:
    try:
        raw = _one_message.decode(data)
    except _UNREADABLE as error:
        return _unreadable(error, path)
    if raw.role not in _ROLES:
        return unprocessable(
            f"{path}.role: unknown variant `{raw.role}`, expected one of `system`, `user`, "
            "`assistant`, `tool`"
        )
    if raw.role == "tool" or raw.tool_calls:
        return bad_request(f"{path}: tool calls are not supported by this server")
    if raw.prefix:
        return bad_request(f"{path}: the parameter `prefix` is not supported by this server")
    if raw.content is None:
        if raw.role == "assistant":
            return bad_request("Invalid assistant message: content or tool_calls must be set")
        return unprocessable(f"{path}: missing field `content`")
    content = raw.content if isinstance(raw.content, str) else _flat(raw.content, path)
    if isinstance(content, ApiError):
        return content
    match raw.role:
        case "user":
            return UserMessage(content)
        case "assistant":
            return AssistantMessage(content)
        case _:
            return SystemMessage(content)


_ROLES = ("system", "developer", "user", "assistant", "tool")


def _flat(parts: Sequence[_Part], path: str) -> str | ApiError:
    """The text of parts, a line break between them as in vLLM's chat renderer."""
    texts = []
    for at, part in enumerate(parts):
        if part.type != "text":
            return unprocessable(
                f"{path}.content[{at}].type: unknown variant `{part.type}`, expected `text`"
            )
        if part.text is None:
            return unprocessable(f"{path}.content[{at}]: missing field `text`")
        texts.append(part.text)
    return "\n".join(texts)


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _unreadable(error: Exception, path: str) -> ApiError:
    """What the decoder says of the value at `path`, the place first, as DeepSeek has it."""
    if not isinstance(error, msgspec.ValidationError):
        return bad_request(f"Failed to parse the request body as JSON: {error}")
    text, _, place = str(error).partition(" - at `$")
    path = f"{path}{place.rstrip('`')}".strip(".")
    text = re.sub(r"Object missing required (field `\w+`)", r"missing \1", text)
    return unprocessable(f"{path}: {text}" if path else text)


def _max_tokens(raw: _Body, limits: ChatLimits) -> int:
    for asked in (raw.max_tokens, raw.max_completion_tokens):
        if asked is not None:
            return asked
    return limits.max_tokens_default


def _stops(raw: str | list[str] | None) -> tuple[str, ...]:
    stops = [raw] if isinstance(raw, str) else raw or []
    return tuple(stop for stop in stops if stop)  # an empty string cannot stop anything


def _check_ranges(raw: _Body, stop: tuple[str, ...], limits: ChatLimits) -> ApiError | None:
    if not raw.messages:
        return bad_request("Invalid messages value, there must be at least one message")
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
    if len(stop) > STOPS_MAX or any(len(text) > STOP_CHARACTERS_MAX for text in stop):
        return bad_request(
            f"Invalid stop value, there may be {STOPS_MAX} strings of {STOP_CHARACTERS_MAX} "
            "characters at most"
        )
    return None


def _out_of_range(name: str, valid: str) -> ApiError:
    return bad_request(f"Invalid {name} value, the valid range of {name} is {valid}")


def _check_abilities(raw: _Body) -> ApiError | None:
    if raw.stream_options is not None and not raw.stream:
        return bad_request("stream_options should be set along with stream = true")
    if raw.thinking is not None and raw.thinking.type != "enabled":
        return _unable(raw, "thinking", raw.thinking.type)
    if raw.response_format is not None and raw.response_format.type != "text":
        return _unable(raw, "response_format", raw.response_format.type)
    if raw.logprobs:
        return _unable(raw, "logprobs")
    if raw.top_logprobs is not None:
        return _unable(raw, "top_logprobs")
    if raw.tools:
        return _unable(raw, "tools")
    if raw.tool_choice not in (None, "none", "auto"):
        return _unable(raw, "tool_choice")
    return None


def _unable(raw: _Body, name: str, value: str | None = None) -> ApiError:
    what = f"`{name}`" if value is None else f"`{name}` of type '{value}'"
    return bad_request(f"{raw.model} does not support the parameter {what}")
