"""The body of a request to Anthropic's Messages API, as the chat request that it amounts to.

What is taken and what is ignored is DeepSeek's own list: https://api-docs.deepseek.com/guides/
anthropic_api. Unknown fields are ignored, and null is absence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

import msgspec

from orchestrator.codec import ToolCall, ToolDefinition
from orchestrator.gateway.answer_format import AnswerFormat
from orchestrator.gateway.chat_request import Asked, Body, ChatRequest, check_asked, model_of
from orchestrator.gateway.conversation import Turn
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.reading import NULL, Unreadable, read, read_whole, unreadable
from orchestrator.gateway.rules import Rules, limits_of
from orchestrator.gateway.tools import ReadTools
from orchestrator.spec import ModelSpec

_STAND_INS = ("deepseek-chat", "deepseek-reasoner")  # for names that there are not
_ROLES = ("user", "assistant", "system")
_BLOCKS = ("text", "tool_use", "tool_result", "thinking")
_CHOICES = ("auto", "any", "tool", "none")
_THINKING: Mapping[str, bool | None] = {"enabled": True, "disabled": False, "adaptive": None}
_CUSTOM = (None, "custom")  # tools of any other type would run at Anthropic's


class _Text(msgspec.Struct, tag="text"):
    text: str


class _ToolUse(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _ToolResult(msgspec.Struct, tag="tool_result"):
    tool_use_id: str
    content: str | list[msgspec.Raw] | None = None


class _Thinking(msgspec.Struct, tag="thinking"):
    pass


_Block = _Text | _ToolUse | _ToolResult | _Thinking


class _Kind(msgspec.Struct):
    type: str


class _Message(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw]


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = NULL


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Count(msgspec.Struct, kw_only=True):
    model: str
    messages: list[msgspec.Raw]
    system: str | list[msgspec.Raw] | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: _Choice | None = None
    thinking: _Kind | None = None


class _Create(_Count, kw_only=True):
    max_tokens: int
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    metadata: _Metadata | None = None


_count = msgspec.json.Decoder(_Count)
_create = msgspec.json.Decoder(_Create)
_message = msgspec.json.Decoder(_Message)
_kind = msgspec.json.Decoder(_Kind)
_block: msgspec.json.Decoder[_Block] = msgspec.json.Decoder(_Block)
_tool = msgspec.json.Decoder(_Tool)
_object = msgspec.json.Decoder(dict[str, object])


def parse_create(
    body: bytes, names: Mapping[str, ModelSpec], rules: Rules
) -> ChatRequest | ApiError:
    """The request for a message in `body`, or the first thing wrong with it.

    A name that there is not means the chat model, or the reasoner where there is none. More tokens
    than the model may write are as many as it may: `max_tokens` cannot be left out, and clients
    send what suits Anthropic's models.
    """
    try:
        raw = read_whole(body, _create)
        fields = Body(
            model="",
            messages=[],
            max_tokens=raw.max_tokens,
            stop=raw.stop_sequences,
            temperature=raw.temperature,
            top_p=raw.top_p,
            stream=raw.stream,
        )
        request = _request(raw, fields, names, rules)
    except Unreadable as refusal:
        return refusal.error
    # It need not have the form that DeepSeek wants: it only ever goes into a hash.
    user_id = raw.metadata.user_id if raw.metadata else None
    return request if isinstance(request, ApiError) else replace(request, user_id=user_id or "")


def parse_count(
    body: bytes, names: Mapping[str, ModelSpec], rules: Rules
) -> ChatRequest | ApiError:
    """The same for a request to count a prompt's tokens: one for a message of a single token."""
    try:
        raw = read_whole(body, _count)
        return _request(raw, Body(model="", messages=[], max_tokens=1), names, rules)
    except Unreadable as refusal:
        return refusal.error


def _request(
    raw: _Count, fields: Body, names: Mapping[str, ModelSpec], rules: Rules
) -> ChatRequest | ApiError:
    rules = replace(rules, strict=False)  # it is chat requests that a strict profile speaks of
    asked = Asked(
        msgspec.structs.replace(fields, model=_name(raw.model, names)),
        _turns(raw),
        _tools(raw),
        AnswerFormat(),
        _thinking(raw.thinking),
    )
    model = model_of(asked, names)
    if isinstance(model, ApiError):
        return model
    most = limits_of(model, rules).max_tokens_max
    fields = msgspec.structs.replace(asked.raw, max_tokens=min(asked.raw.max_tokens or 0, most))
    return check_asked(replace(asked, raw=fields), names, rules, beta=True)


def _name(name: str, names: Mapping[str, ModelSpec]) -> str:
    return next((known for known in (name, *_STAND_INS) if known in names), name)


def _thinking(asked: _Kind | None) -> bool | None:
    if asked is None:
        return None
    if asked.type not in _THINKING:
        raise _unknown("thinking.type", asked.type, ("enabled", "disabled"))
    return _THINKING[asked.type]


def _turns(raw: _Count) -> tuple[Turn, ...]:
    if not raw.messages:
        raise unreadable("messages", "there must be at least one message")
    turns = []
    if raw.system is not None:
        turns.append(_turn("system", _text(raw.system, "system")))
    for at, data in enumerate(raw.messages):
        turns += _message_turns(data, f"messages[{at}]")
    last = turns[-1]
    if last.role == "assistant":
        if last.calls:
            raise unreadable("messages", "`tool_use` must be followed by its `tool_result`")
        # The beginning of the answer, but for an empty one, with which all is still open.
        turns[-1:] = [replace(last, prefix=True)] if last.content else []
    return tuple(replace(turn, at=at) for at, turn in enumerate(turns))


def _message_turns(data: msgspec.Raw, path: str) -> list[Turn]:
    """The turns that one message amounts to: a user's may hold results of tools beside text."""
    raw = read(data, _message, path)
    path = f"{path}.content"
    match raw.role:
        case "user":
            return [*_user_turns(raw.content, path)]
        case "assistant":
            return [_assistant_turn(raw.content, path)]
        case "system":
            return [_turn("system", _text(raw.content, path))]
        case _:
            raise _unknown(path.replace("content", "role"), raw.role, _ROLES)


def _user_turns(content: str | list[msgspec.Raw], path: str) -> Iterator[Turn]:
    texts = [content] if isinstance(content, str) else []
    results = False
    for block, place in _blocks(content, path):
        match block:
            case _Text():
                texts.append(block.text)
            case _ToolResult():
                if texts:
                    yield _turn("user", "\n".join(texts))
                    texts = []
                results = True
                text = _text(block.content or "", f"{place}.content")
                yield _turn("tool", text, call_id=block.tool_use_id)
            case _Thinking():
                pass
            case _ToolUse():
                raise unreadable(place, "`tool_use` is for messages of the role assistant")
            case _:
                assert_never(block)
    if texts or not results:
        yield _turn("user", "\n".join(texts))


def _assistant_turn(content: str | list[msgspec.Raw], path: str) -> Turn:
    texts = [content] if isinstance(content, str) else []
    calls, call_ids = [], []
    for block, place in _blocks(content, path):
        match block:
            case _Text():
                texts.append(block.text)
            case _ToolUse():
                calls.append(ToolCall(block.name, _object_text(block.input, f"{place}.input")))
                call_ids.append(block.id)
            case _Thinking():
                pass  # reasoning of earlier turns is not for the model
            case _ToolResult():
                raise unreadable(place, "`tool_result` is for messages of the role user")
            case _:
                assert_never(block)
    return replace(
        _turn("assistant", "\n".join(texts)), calls=tuple(calls), call_ids=tuple(call_ids)
    )


def _turn(role: str, content: str, call_id: str | None = None) -> Turn:
    """A turn whose place is not known yet."""
    return Turn(
        at=-1,
        role=role,
        content=content,
        parts=False,
        renamed=False,
        reasoning=None,
        calls=(),
        call_ids=(),
        call_id=call_id,
        prefix=False,
    )


def _blocks(content: str | list[msgspec.Raw], path: str) -> Iterator[tuple[_Block, str]]:
    """The blocks of a content and their places; of one that is a text, none."""
    for at, data in enumerate(() if isinstance(content, str) else content):
        place = f"{path}[{at}]"
        kind = read(data, _kind, place).type
        if kind not in _BLOCKS:
            raise _unknown(f"{place}.type", kind, _BLOCKS)
        yield read(data, _block, place), place


def _text(content: str | list[msgspec.Raw], path: str) -> str:
    """A content that may hold text only; its blocks are joined as the parts in chat are."""
    if isinstance(content, str):
        return content
    texts = []
    for block, place in _blocks(content, path):
        if not isinstance(block, _Text):
            raise unreadable(f"{place}.type", "only `text` may stand here")
        texts.append(block.text)
    return "\n".join(texts)


def _object_text(data: msgspec.Raw, path: str) -> str:
    """A JSON object as R1 writes them: on one line, a blank behind each colon and comma."""
    read(data, _object, path)
    return msgspec.json.format(bytes(data).decode(), indent=0)


def _tools(raw: _Count) -> ReadTools:
    functions, schemas = [], []
    for at, data in enumerate(raw.tools or ()):
        path = f"tools[{at}]"
        tool = read(data, _tool, path)
        if tool.type not in _CUSTOM:
            raise _unknown(f"{path}.type", str(tool.type), ("custom",))
        text = _object_text(tool.input_schema, f"{path}.input_schema")
        functions.append(ToolDefinition(tool.name, tool.description or "", text))
        schemas.append(_object.decode(text))
    strict = (False,) * len(functions)
    return ReadTools(tuple(functions), strict, tuple(schemas), _choice(raw.tool_choice))


def _choice(asked: _Choice | None) -> str:
    if asked is None:
        return "auto"
    match asked.type:
        case "auto" | "none":
            return asked.type
        case "any":
            return "required"
        case "tool":
            if asked.name is None:
                raise unreadable("tool_choice", "missing field `name`")
            return f"={asked.name}"
        case _:
            raise _unknown("tool_choice.type", asked.type, _CHOICES)


def _unknown(path: str, variant: str, known: Sequence[str]) -> Unreadable:
    expected = ", ".join(f"`{one}`" for one in known)
    return unreadable(path, f"unknown variant `{variant}`, expected one of {expected}")
