"""The messages of a chat request: read, checked against the profile, brought into one form.

Lenient where DeepSeek has been strict at some time: `developer` is `system`, text parts may stand
in every role, turns in any order, reasoning of earlier turns is dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from orchestrator.codec import (
    AssistantMessage,
    Message,
    Prefix,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.reading import read, unreadable
from orchestrator.gateway.rules import ReasoningInput, Rules

_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as it was sent; `at` is its place."""

    at: int
    role: str  # one of the four official ones
    content: str | None
    parts: bool  # the content came in parts
    renamed: bool  # the role came as `developer`
    reasoning: str | None
    calls: tuple[ToolCall, ...]
    call_ids: tuple[str, ...]
    call_id: str | None
    prefix: bool


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, msgspec.Raw] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    prefix: bool | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


_message = msgspec.json.Decoder(_Message)


def read_turns(messages: Sequence[msgspec.Raw]) -> tuple[Turn, ...]:
    """The messages, each by itself well-formed; raises `Unreadable`."""
    return tuple(_turn(data, at) for at, data in enumerate(messages))


def _turn(data: msgspec.Raw, at: int) -> Turn:
    path = f"messages[{at}]"
    raw = read(data, _message, path)
    if raw.role not in _ROLES:
        expected = "expected one of `system`, `user`, `assistant`, `tool`"
        raise unreadable(f"{path}.role", f"unknown variant `{raw.role}`, {expected}")
    if raw.content is None and raw.role != "assistant":
        raise unreadable(path, "missing field `content`")
    if raw.role == "tool" and raw.tool_call_id is None:
        raise unreadable(path, "missing field `tool_call_id`")
    calls = raw.tool_calls or []
    return Turn(
        at=at,
        role="system" if raw.role == "developer" else raw.role,
        content=_flat(raw.content, path) if isinstance(raw.content, list) else raw.content,
        parts=isinstance(raw.content, list),
        renamed=raw.role == "developer",
        reasoning=raw.reasoning_content,
        calls=tuple(ToolCall(call.function.name, _arguments(call.function)) for call in calls),
        call_ids=tuple(call.id or "" for call in calls),
        call_id=raw.tool_call_id,
        prefix=bool(raw.prefix),
    )


def _arguments(function: _Function) -> str:
    """The text the model wrote; some clients send it parsed."""
    if isinstance(function.arguments, dict):
        return msgspec.json.encode(function.arguments).decode()
    return function.arguments or "{}"


def _flat(parts: Sequence[_Part], path: str) -> str:
    """The text of parts, a line break between them as in vLLM's chat renderer."""
    texts = []
    for at, part in enumerate(parts):
        if part.type != "text":
            what = f"unknown variant `{part.type}`, expected `text`"
            raise unreadable(f"{path}.content[{at}].type", what)
        if part.text is None:
            raise unreadable(f"{path}.content[{at}]", "missing field `text`")
        texts.append(part.text)
    return "\n".join(texts)


def check_turns(turns: Sequence[Turn], rules: Rules, *, thinks: bool, beta: bool) -> str | None:
    """The first thing wrong with the messages as a whole, or None."""
    for turn in turns:
        silent = turn.content is None and not turn.calls
        if turn.role == "assistant" and silent and not (turn.prefix and turn.reasoning):
            return "Invalid assistant message: content or tool_calls must be set"
        if turn.prefix and (turn.role != "assistant" or turn.at != len(turns) - 1):
            return "The parameter `prefix` is for the last message, of the role assistant, only"
        if turn.prefix and not beta:
            return (
                "Chat prefix completion is a beta feature, please set base_url to end with /beta"
                " (refer to https://api-docs.deepseek.com/guides/chat_prefix_completion)."
            )
    if not rules.strict:
        return None
    problems = [*_strict(turns, rules, thinks=thinks)]
    return problems[0] if problems else None


def _strict(turns: Sequence[Turn], rules: Rules, *, thinks: bool) -> Iterator[str]:
    """What the official API refuses, in its own words where they are known."""
    if thinks and rules.alternating:
        talk = [turn for turn in turns if turn.role in {"user", "assistant"}]
        for one, two in pairwise(talk):
            if one.role == two.role:
                yield (
                    "deepseek-reasoner does not support successive user or assistant messages "
                    f"(messages[{one.at}] and messages[{two.at}] in your input). You should "
                    "interleave the user/assistant messages in the message sequence."
                )
    last = turns[-1]
    if thinks and not (last.role in {"user", "tool"} or last.prefix):
        yield (
            "The last message of deepseek-reasoner must be a user message, or an assistant message "
            "with prefix mode on (refer to "
            "https://api-docs.deepseek.com/guides/chat_prefix_completion)."
        )
    yield from _strict_tools(turns)
    if thinks:
        yield from _strict_reasoning(turns, rules)


def _strict_tools(turns: Sequence[Turn]) -> Iterator[str]:
    open_ids: set[str] = set()
    for turn in turns:
        if turn.role == "tool":
            if turn.call_id not in open_ids:
                yield (
                    "Messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'"
                )
            open_ids.discard(turn.call_id or "")
        elif open_ids:
            break
        else:
            open_ids = set(turn.call_ids)
    if open_ids:
        yield (
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. (insufficient tool messages following tool_calls message)"
        )


def _strict_reasoning(turns: Sequence[Turn], rules: Rules) -> Iterator[str]:
    asked_at = max((turn.at for turn in turns if turn.role == "user"), default=-1)
    for turn in turns:
        if turn.role != "assistant" or turn.prefix:
            continue
        match rules.reasoning_input:
            case ReasoningInput.REFUSED if turn.reasoning is not None:
                yield (
                    "The reasoning_content is an intermediate result for display purposes only "
                    "and will not be included in the context for inference. Please remove the "
                    f"reasoning_content from messages[{turn.at}]."
                )
            case ReasoningInput.REQUIRED_IN_TOOL_LOOP if (
                turn.reasoning is None and turn.calls and turn.at > asked_at
            ):
                yield (
                    "Missing `reasoning_content` field in the assistant message at message index "
                    f"{turn.at}. For more information, please refer to "
                    "https://api-docs.deepseek.com/guides/thinking_mode#tool-calls"
                )
            case _:
                pass


def check_forms(turns: Sequence[Turn], rules: Rules) -> ApiError | None:
    """What only a strict reader would not understand: other roles, parts outside user messages."""
    if rules.strict:
        for turn in turns:
            if turn.renamed:
                expected = "expected one of `system`, `user`, `assistant`, `tool`"
                what = f"unknown variant `developer`, {expected}"
                return unreadable(f"messages[{turn.at}].role", what).error
            if turn.parts and turn.role != "user":
                what = "invalid type: sequence, expected a string"
                return unreadable(f"messages[{turn.at}]", what).error
    return None if turns else bad_request(_NO_MESSAGES)


_NO_MESSAGES = "Invalid messages value, there must be at least one message"


def messages_of(turns: Sequence[Turn]) -> tuple[tuple[Message, ...], Prefix | None]:
    """The conversation in one form, and the beginning of the answer if the last turn is one."""
    prefix = None
    if turns and turns[-1].prefix:
        last, turns = turns[-1], turns[:-1]
        prefix = Prefix(
            last.reasoning, last.content if last.content or not last.reasoning else None
        )
    messages: list[Message] = []
    for turn in _in_call_order(turns):
        match turn.role:
            case "user":
                messages.append(UserMessage(turn.content or ""))
            case "assistant":
                messages.append(AssistantMessage(turn.content or "", turn.calls))
            case "tool":
                messages.append(ToolMessage(turn.content or ""))
            case _:
                messages.append(SystemMessage(turn.content or ""))
    return tuple(messages), prefix


def _in_call_order(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with each run of tool results in the order of the calls they answer.

    The template names no call in its results: their order is all that the model sees.
    """
    ordered: list[Turn] = []
    order: dict[str, int] = {}
    run: list[Turn] = []
    for turn in turns:
        if turn.role == "tool":
            run.append(turn)
            continue
        ordered += sorted(run, key=lambda t: order.get(t.call_id or "", len(order)))
        ordered.append(turn)
        run, order = [], {call_id: at for at, call_id in enumerate(turn.call_ids)}
    return ordered + sorted(run, key=lambda t: order.get(t.call_id or "", len(order)))
