"""The bytes of a chat completion, key for key as the official DeepSeek API sends them.

The shapes are those of recorded streams of `deepseek-reasoner`: repository vercel/ai,
packages/deepseek/src/chat/__fixtures__. A stream carries the usage on its last chunk only, and
always: there is no extra chunk for it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never

import msgspec

from orchestrator.codec import AnswerText, Piece, ReasoningText, ToolCallArguments, ToolCallStart
from orchestrator.core import Finish

DONE = b"data: [DONE]\n\n"
CACHE_UNIT_TOKENS = 64  # https://api-docs.deepseek.com/guides/kv_cache


class FinishReason(StrEnum):
    """Why a completion ended, as a client is told."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    INSUFFICIENT_SYSTEM_RESOURCE = "insufficient_system_resource"


def finish_reason(finish: Finish, *, stopped: bool, tool_calls: int) -> FinishReason:
    """What the client is told. `stopped`: a stop string was found, which makes us abort.

    A failure after bytes have been sent is a completion too, with what there is: an error body in
    its place would be read by the OpenAI clients as a completion without choices.
    """
    if stopped:
        return FinishReason.STOP
    match finish:
        case Finish.STOP:
            return FinishReason.TOOL_CALLS if tool_calls else FinishReason.STOP
        case Finish.LENGTH:
            return FinishReason.LENGTH
        case Finish.ABORTED | Finish.REFUSED | Finish.FAILED | Finish.LOST:
            return FinishReason.INSUFFICIENT_SYSTEM_RESOURCE
        case _:
            assert_never(finish)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. `cached_tokens` is the engine's own count of the prefix hit."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int  # reasoning included
    reasoning_tokens: int

    @property
    def hit_tokens(self) -> int:
        """The prefix hit in whole cache units."""
        return self.cached_tokens // CACHE_UNIT_TOKENS * CACHE_UNIT_TOKENS

    def to_json(self) -> bytes:
        """The value of `usage`."""
        hit = self.hit_tokens
        return msgspec.json.encode(
            {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
                "prompt_tokens_details": {"cached_tokens": hit},
                "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
                "prompt_cache_hit_tokens": hit,
                "prompt_cache_miss_tokens": self.prompt_tokens - hit,
            }
        )


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What all the bytes of one reply repeat. `created` is in whole seconds of Unix time."""

    id: str  # a bare UUIDv4
    created: int
    model: str  # as the client named it
    system_fingerprint: str


class Reply(Protocol):
    """Turns one completion into bytes: any number of `push`, then one `end`."""

    content_type: str
    keep_alive: bytes  # may be sent at any time before `end`, between two results of `push`

    def push(self, pieces: Sequence[Piece]) -> bytes:
        """The bytes to send now, which may be none."""
        ...

    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last bytes."""
        ...


class StreamReply:
    """A reply as server-sent events: the first `push` says who speaks, even without pieces."""

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, head: ReplyHead) -> None:
        self._id = head.id
        self._opened = False
        self._chunk = b"".join(
            (
                b'data: {"id":',
                _json(head.id),
                b',"object":"chat.completion.chunk","created":',
                _json(head.created),
                b',"model":',
                _json(head.model),
                b',"system_fingerprint":',
                _json(head.system_fingerprint),
                b',"choices":[{"index":0,"delta":',
            )
        )
        self._reasoning = self._chunk + b'{"content":null,"reasoning_content":'
        self._answer = self._chunk + b'{"content":'

    def push(self, pieces: Sequence[Piece]) -> bytes:
        """One chunk for each piece."""
        chunks = [] if self._opened else [self._open()]
        for piece in pieces:
            match piece:
                case ReasoningText(text):
                    chunks += (self._reasoning, _json(text), _NEXT)
                case AnswerText(text):
                    chunks += (self._answer, _json(text), b',"reasoning_content":null', _NEXT)
                case ToolCallStart(index, name):
                    call = _tool_call(self._id, index, name, "")
                    chunks += (self._chunk, b'{"tool_calls":[', call, b"]", _NEXT)
                case ToolCallArguments(index, text):
                    call = b'{"index":%d,"function":{"arguments":%b}}' % (index, _json(text))
                    chunks += (self._chunk, b'{"tool_calls":[', call, b"]", _NEXT)
                case _:
                    assert_never(piece)
        return b"".join(chunks)

    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The chunk with reason and usage, and the end of the stream."""
        return b"".join(
            (
                b"" if self._opened else self._open(),
                self._answer,
                b'"","reasoning_content":null},"logprobs":null,"finish_reason":',
                _json(reason.value),
                b'}],"usage":',
                usage.to_json(),
                b"}\n\n",
                DONE,
            )
        )

    def _open(self) -> bytes:
        self._opened = True
        return b"".join(
            (self._chunk, b'{"role":"assistant","content":null,"reasoning_content":""', _NEXT)
        )


_NEXT = b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


class BodyReply:
    """A reply as one JSON body: everything comes with `end`."""

    content_type = "application/json"
    keep_alive = b"\n"

    def __init__(self, head: ReplyHead) -> None:
        self._head = head
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._calls: list[tuple[str, list[str]]] = []  # name, arguments

    def push(self, pieces: Sequence[Piece]) -> bytes:
        """No bytes."""
        for piece in pieces:
            match piece:
                case ReasoningText(text):
                    self._reasoning.append(text)
                case AnswerText(text):
                    self._answer.append(text)
                case ToolCallStart(_, name):
                    self._calls.append((name, []))
                case ToolCallArguments(index, text):
                    self._calls[index][1].append(text)
                case _:
                    assert_never(piece)
        return b""

    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The whole body."""
        calls = [
            _tool_call(self._head.id, index, name, "".join(arguments))
            for index, (name, arguments) in enumerate(self._calls)
        ]
        return b"".join(
            (
                b'{"id":',
                _json(self._head.id),
                b',"object":"chat.completion","created":',
                _json(self._head.created),
                b',"model":',
                _json(self._head.model),
                b',"choices":[{"index":0,"message":{"role":"assistant","content":',
                _json("".join(self._answer)),
                b',"reasoning_content":',
                _json("".join(self._reasoning)),
                b',"tool_calls":[' + b",".join(calls) + b"]" if calls else b"",
                b'},"logprobs":null,"finish_reason":',
                _json(reason.value),
                b'}],"usage":',
                usage.to_json(),
                b',"system_fingerprint":',
                _json(self._head.system_fingerprint),
                b"}",
            )
        )


def models_body(models: Sequence[str], created: int) -> bytes:
    """The body of `GET /models`. DeepSeek sends no `created`; OpenAI's strict types need it."""
    data = [
        {"id": model, "object": "model", "created": created, "owned_by": "deepseek"}
        for model in models
    ]
    return msgspec.json.encode({"object": "list", "data": data})


def _tool_call(reply_id: str, index: int, name: str, arguments: str) -> bytes:
    """One call in full; its id is the same whenever it is asked for."""
    digest = hashlib.sha256(f"{reply_id}/{index}".encode()).hexdigest()[:24]
    return _json(
        {
            "index": index,
            "id": f"call_{index:02}_{digest}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
    )


def _json(value: object) -> bytes:
    """JSON that no line reader can break: the line ends that JSON allows in strings are escaped."""
    data = msgspec.json.encode(value)
    if not data.isascii():
        for raw, escaped in _LINE_ENDS:
            data = data.replace(raw, escaped)
    return data


_LINE_ENDS = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")
