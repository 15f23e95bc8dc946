"""The bytes of Anthropic's Messages API: whole messages, streams of events, errors.

The shapes are those of the official client's types, and of
https://platform.claude.com/docs/build-with-claude/streaming. A signature of a thinking block is
there, and empty: reasoning that comes back is dropped, so there is nothing to prove.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import msgspec
from typing_extensions import override

from orchestrator.codec import AnswerText, Piece, ReasoningText, ToolCallArguments, ToolCallStart
from orchestrator.gateway.errors import ApiError, overloaded
from orchestrator.gateway.wire import (
    FinishReason,
    Reply,
    ReplyHead,
    ScoredToken,
    Usage,
    call_id,
    to_json,
)

# Where Anthropic has a status of its own it is used, for its clients choose by it what to raise:
# they know no 422, and raise their overloaded error for 529 alone. All from 500 up they try again.
_STATUS: Mapping[int, int] = {422: 400, 503: 529}
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_CUT_OFF = overloaded("The completion could not be finished, please try again")


def error_of(error: ApiError) -> tuple[int, bytes]:
    """Status and body of `error`."""
    status = _STATUS.get(error.status, error.status)
    content = {"type": _TYPES.get(status, "invalid_request_error"), "message": error.message}
    return status, to_json({"type": "error", "error": content})


class Stopping(Protocol):
    """What the splitter of an output knows of its end."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What a message says of its request."""

    input_tokens: int
    stops: tuple[str, ...]
    output: Stopping


class MessageReply(Reply):
    """A reply as one JSON body: everything comes with `end`."""

    content_type = "application/json"
    keep_alive = b"\n"

    def __init__(self, head: ReplyHead, facts: Facts) -> None:
        self._head = head
        self._facts = facts
        self._blocks: list[tuple[dict[str, object], list[str]]] = []  # as begun, the text to come

    @override
    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """No bytes."""
        for piece in pieces:
            block = _begun(piece, self._head.id)
            if block is not None and not self._goes_on(block):
                self._blocks.append((block, []))
            if not isinstance(piece, ToolCallStart):
                self._blocks[-1][1].append(piece.text)
        return b""

    @override
    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The whole body.

        A failure this late is a message too, with what there is: the client reads no error out of
        a body whose status was 200. It says `max_tokens`, the one reason by which clients know
        that the text is not whole and that a last tool call must not be made.
        """
        content = [_filled(block, "".join(texts)) for block, texts in self._blocks]
        return to_json(_message(self._head, content, _stop(reason, self._facts), usage))

    def _goes_on(self, block: dict[str, object]) -> bool:
        return bool(self._blocks) and _joins(self._blocks[-1][0], block)


class MessageStream(Reply):
    """A reply as server-sent events.

    The arguments of a tool call come in one piece, when they are whole: a client is promised an
    object, the model may write anything, and what has been sent cannot be taken back.
    """

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, head: ReplyHead, facts: Facts) -> None:
        self._head = head
        self._facts = facts
        self._opened = False
        self._index = -1  # of the block that was begun last
        self._block: dict[str, object] | None = None  # which is still open
        self._arguments: list[str] = []

    @override
    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """An event for each piece, and those around each block."""
        events = self._open()
        for piece in pieces:
            block = _begun(piece, self._head.id)
            if block is not None and not (self._block and _joins(self._block, block)):
                events += (*self._close(), self._begin(block))
            match piece:
                case ReasoningText(text):
                    events.append(self._delta({"type": "thinking_delta", "thinking": text}))
                case AnswerText(text):
                    events.append(self._delta({"type": "text_delta", "text": text}))
                case ToolCallArguments(_, text):
                    self._arguments.append(text)
                case ToolCallStart():
                    pass
                case _:
                    assert_never(piece)
        return b"".join(events)

    @override
    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The end of the message, or an error, which the client raises with the text it has."""
        events = self._open()
        if reason is FinishReason.INSUFFICIENT_SYSTEM_RESOURCE:
            return b"".join((*events, b"event: error\ndata: %b\n\n" % error_of(_CUT_OFF)[1]))
        delta = _stop(reason, self._facts)
        events += self._close()
        events.append(_event("message_delta", delta=delta, usage=_usage(usage)))
        events.append(_event("message_stop"))
        return b"".join(events)

    def _open(self) -> list[bytes]:
        if self._opened:
            return []
        self._opened = True
        # How much of the prompt was cached is not known yet; the end says it, and replaces this.
        usage = Usage(self._facts.input_tokens, 0, 0, None)
        message = _message(self._head, [], _stopped(None), usage)
        return [_event("message_start", message=message)]

    def _begin(self, block: dict[str, object]) -> bytes:
        self._index += 1
        self._block = block
        return _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: dict[str, object]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> list[bytes]:
        """Ends the block that is open, if there is one."""
        if self._block is None:
            return []
        events = []
        if self._block["type"] == "tool_use":
            arguments = _arguments("".join(self._arguments))
            events.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
        self._block, self._arguments = None, []
        return [*events, _event("content_block_stop", index=self._index)]


def _begun(piece: Piece, reply_id: str) -> dict[str, object] | None:
    """The block that `piece` belongs to, without content; None: to that of the call before it."""
    match piece:
        case ReasoningText():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case AnswerText():
            return {"type": "text", "text": ""}
        case ToolCallStart(index, name):
            return {
                "type": "tool_use",
                "id": f"toolu_{call_id(reply_id, index)}",
                "name": name,
                "input": {},
            }
        case ToolCallArguments():
            return None
        case _:
            assert_never(piece)


def _joins(open_block: dict[str, object], block: dict[str, object]) -> bool:
    """Whether text of `block` goes on with the open one: each tool call is a block of its own."""
    return open_block["type"] == block["type"] != "tool_use"


def _filled(block: dict[str, object], text: str) -> dict[str, object]:
    if block["type"] == "tool_use":
        return block | {"input": msgspec.Raw(_arguments(text).encode())}
    return block | {str(block["type"]): text}


_object = msgspec.json.Decoder(dict[str, object])


def _arguments(text: str) -> str:
    """What the model wrote if it is a JSON object, and an empty one otherwise.

    The tool's own check of its input will then tell the model what is missing.
    """
    try:
        _object.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return "{}"
    return text


def _message(
    head: ReplyHead, content: object, stop: dict[str, str | None], usage: Usage
) -> dict[str, object]:
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        **stop,
        "usage": _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, int]:
    """What was cached is not part of `input_tokens`."""
    return {
        "input_tokens": usage.prompt_tokens - usage.hit_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.hit_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _stop(reason: FinishReason, facts: Facts) -> dict[str, str | None]:
    """Why the message ended. Which stop sequence it was is certain only if there is no other."""
    match reason:
        case FinishReason.STOP if facts.stops and facts.output.stopped:
            sequence = facts.stops[0] if len(set(facts.stops)) == 1 else None
            return _stopped("stop_sequence", sequence)
        case FinishReason.STOP:
            return _stopped("end_turn")
        case FinishReason.TOOL_CALLS:
            return _stopped("tool_use")
        case FinishReason.LENGTH | FinishReason.INSUFFICIENT_SYSTEM_RESOURCE:
            return _stopped("max_tokens")
        case _:
            assert_never(reason)


def _stopped(reason: str | None, sequence: str | None = None) -> dict[str, str | None]:
    return {"stop_reason": reason, "stop_sequence": sequence}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json({"type": kind} | fields))
