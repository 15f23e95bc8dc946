"""The body of a chat completion request: read, checked, and brought into one form.

The order of checks is DeepSeek's: the body's form, the model, ranges, what the model can do. Fields
that DeepSeek does not know are ignored, and null is absence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from orchestrator.codec import Conversation
from orchestrator.gateway.answer_format import (
    AnswerFormat,
    check_format,
    read_format,
)
from orchestrator.gateway.conversation import (
    Turn,
    check_forms,
    check_turns,
    messages_of,
    read_turns,
)
from orchestrator.gateway.drawing import (
    Drawing,
    DrawingFields,
    check_drawing,
    check_stream,
    drawing_of,
)
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.reading import NULL, Unreadable, read_whole, unreadable
from orchestrator.gateway.rules import Limits, Rules, limits_of
from orchestrator.gateway.tools import ReadTools, Tools, check_tools, read_tools, tools_of
from orchestrator.spec import ModelSpec

_EFFORTS: Mapping[str, int | None] = {  # tokens of reasoning; None: as many as `max_tokens` has
    "minimal": 4_096,
    "low": 4_096,
    "medium": 16_384,
    "high": None,
    "xhigh": None,
    "max": None,
}
_NO_EFFORT = "none"  # some clients say so when they want no reasoning


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion request that is valid but for its length; see `check_context`."""

    name: str  # the model's name that the client used, to be repeated to it
    model: ModelSpec
    conversation: Conversation
    limits: Limits
    drawing: Drawing
    tools: Tools
    answer_format: AnswerFormat
    thinks: bool  # the reply has a reasoning part
    thinking_budget: int | None  # tokens
    stream: bool
    include_usage: bool
    user_id: str


class _Thinking(msgspec.Struct):
    type: str


class Body(DrawingFields):
    """The fields as they stand in a body."""

    model: str
    messages: list[msgspec.Raw]
    thinking: _Thinking | None = None
    reasoning_effort: str | None = None
    response_format: msgspec.Raw = NULL
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = NULL


_body = msgspec.json.Decoder(Body)


@dataclass(frozen=True, slots=True)
class Asked:
    """A body with its parts read, each by itself well-formed."""

    raw: Body
    turns: tuple[Turn, ...]
    tools: ReadTools
    answer_format: AnswerFormat
    thinking: bool | None  # None: not said


def parse_chat_request(
    body: bytes, names: Mapping[str, ModelSpec], rules: Rules, *, beta: bool
) -> ChatRequest | ApiError:
    """The request in `body`, or the first thing wrong with it."""
    try:
        asked = _read(body, rules)
    except Unreadable as refusal:
        return refusal.error
    return check_asked(asked, names, rules, beta=beta)


def check_asked(
    asked: Asked, names: Mapping[str, ModelSpec], rules: Rules, *, beta: bool
) -> ChatRequest | ApiError:
    """The request that was read, or the first thing wrong with it."""
    if error := check_forms(asked.turns, rules):
        return error
    model = model_of(asked, names)
    if isinstance(model, ApiError):
        return model
    limits = limits_of(model, rules)
    error = check_drawing(asked.raw, limits) or _check(asked, model, rules, beta=beta)
    if error is not None:
        return error
    return _request(asked, model, limits, rules, beta=beta)


def check_context(prompt_tokens: int, max_tokens: int, limits: Limits) -> ApiError | None:
    """Whether prompt and output fit. What was asked for counts, not what will be generated."""
    asked = prompt_tokens + max_tokens
    if asked <= limits.context_tokens:
        return None
    return bad_request(
        f"This model's maximum context length is {limits.context_tokens} tokens. However, you "
        f"requested {asked} tokens ({prompt_tokens} in the messages, {max_tokens} in the "
        "completion). Please reduce the length of the messages or completion."
    )


def _read(body: bytes, rules: Rules) -> Asked:
    raw = read_whole(body, _body)
    return Asked(
        raw,
        read_turns(raw.messages),
        read_tools(raw.tools or (), raw.tool_choice),
        read_format(raw.response_format),
        _thinking(raw) if rules.switch else None,
    )


def _thinking(raw: Body) -> bool | None:
    if raw.reasoning_effort not in {None, _NO_EFFORT, *_EFFORTS}:
        expected = ", ".join(f"`{effort}`" for effort in _EFFORTS)
        what = f"unknown variant `{raw.reasoning_effort}`, expected one of {expected}"
        raise unreadable("reasoning_effort", what)
    if raw.thinking is None:
        return False if raw.reasoning_effort == _NO_EFFORT else None
    if raw.thinking.type not in {"enabled", "disabled"}:
        what = f"unknown variant `{raw.thinking.type}`, expected `enabled` or `disabled`"
        raise unreadable("thinking.type", what)
    return raw.thinking.type == "enabled"


def model_of(asked: Asked, names: Mapping[str, ModelSpec]) -> ModelSpec | ApiError:
    """The model that serves the name; `thinking` moves an alias between the chat model and R1."""
    name = asked.raw.model
    model = names.get(name)
    if model is None:
        return bad_request("Model Not Exist")
    if asked.thinking is None or asked.thinking == model.profile.thinks or name == model.name:
        other: ModelSpec | None = model
    else:
        other = names.get("deepseek-reasoner" if asked.thinking else "deepseek-chat")
        if other is not None and other.profile.thinks is not asked.thinking:
            other = None
    if asked.thinking and not (other or model).profile.thinks:
        return bad_request(f"{name} does not support the parameter `thinking` of type 'enabled'")
    return other or model


def _check(asked: Asked, model: ModelSpec, rules: Rules, *, beta: bool) -> ApiError | None:
    """What the model, the profile or the endpoint does not do."""
    raw, thinks = asked.raw, model.profile.thinks
    if error := check_stream(raw):
        return error
    if problem := check_turns(asked.turns, rules, thinks=thinks, beta=beta):
        return bad_request(problem)
    if thinks and not rules.tools and asked.tools.functions:
        return bad_request(f"{raw.model} does not support Function Calling")
    if error := check_tools(asked.tools, beta=beta, strict_api=rules.strict):
        return error
    texts = [turn.content or "" for turn in asked.turns]
    if problem := check_format(asked.answer_format, texts, strict=rules.strict):
        return bad_request(problem)
    if thinks and not rules.json_object and asked.answer_format.json:
        return bad_request(f"{raw.model} does not support Json Output")
    return _check_logprobs(raw, thinks=thinks)


def _check_logprobs(raw: Body, *, thinks: bool) -> ApiError | None:
    for name, wanted in (
        ("logprobs", bool(raw.logprobs)),
        ("top_logprobs", raw.top_logprobs is not None),
    ):
        if wanted and thinks:
            return bad_request(f"{raw.model} does not support the parameter `{name}`")
    if raw.top_logprobs is not None and not raw.logprobs:
        return bad_request("top_logprobs should be set along with logprobs = true")
    if raw.top_logprobs is not None and not 0 <= raw.top_logprobs <= 20:
        return bad_request("Invalid top_logprobs value, the valid range of top_logprobs is [0, 20]")
    return None


def _request(
    asked: Asked, model: ModelSpec, limits: Limits, rules: Rules, *, beta: bool
) -> ChatRequest:
    raw = asked.raw
    suppressed = asked.thinking is False and model.profile.thinks
    tools = tools_of(asked.tools, beta=beta)
    messages, prefix = messages_of(asked.turns)
    effort = raw.reasoning_effort if rules.switch else None
    budget = _EFFORTS.get(effort or "")
    logprobs = (raw.top_logprobs or 0) if raw.logprobs else None
    return ChatRequest(
        name=raw.model,
        model=model,
        conversation=Conversation(messages, tools.definitions, prefix, suppressed),
        limits=limits,
        drawing=drawing_of(raw, limits, logprobs),
        tools=tools,
        answer_format=asked.answer_format,
        thinks=model.profile.thinks and not suppressed,
        thinking_budget=limits.thought_tokens or budget,
        stream=bool(raw.stream),
        include_usage=bool(raw.stream_options and raw.stream_options.include_usage),
        user_id=raw.user_id or "",
    )
