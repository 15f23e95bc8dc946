"""The bytes of a chat completion, key for key as the official DeepSeek API sends them.

The shapes are those of recorded streams of `deepseek-reasoner` and `deepseek-chat`: repository
vercel/ai, packages/deepseek/src/chat/__fixtures__. A stream carries the usage on its last chunk
only, and always: there is no extra chunk for it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never

import msgspec

from orchestrator.codec import AnswerText, Piece, ReasoningText, ToolCallArguments, ToolCallStart
from orchestrator.core import Finish
from orchestrator.spec import ApiSpec, FirstDelta, StreamUsage

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
    """Tokens of one completion. `cached_tokens` is the engine's own count of the prefix hit.

    `reasoning_tokens` None: the completion has no reasoning part, and says nothing of one.
    `thinking_budget` is our own: told where one applied.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int  # reasoning included
    reasoning_tokens: int | None
    thinking_budget: int | None = None  # tokens

    @property
    def hit_tokens(self) -> int:
        """The prefix hit in whole cache units."""
        return self.cached_tokens // CACHE_UNIT_TOKENS * CACHE_UNIT_TOKENS

    def to_json(self) -> bytes:
        """The value of `usage`."""
        hit = self.hit_tokens
        body: dict[str, object] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": hit},
        }
        if self.reasoning_tokens is not None:
            details = {"reasoning_tokens": self.reasoning_tokens}
            if self.thinking_budget is not None:
                details["thinking_budget_tokens"] = self.thinking_budget
            body["completion_tokens_details"] = details
        body["prompt_cache_hit_tokens"] = hit
        body["prompt_cache_miss_tokens"] = self.prompt_tokens - hit
        return msgspec.json.encode(body)


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What all the bytes of one reply repeat. `created` is in whole seconds of Unix time."""

    id: str  # a bare UUIDv4
    created: int
    model: str  # as the client named it
    system_fingerprint: str


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """Which of the official shapes a reply has, and what the operator added to it."""

    thinks: bool = True
    first_content: str | None = None  # of a thinking stream's first chunk
    reasoning_alias: bool = False  # `reasoning` beside `reasoning_content`
    usage_chunk: bool | None = None  # a chunk of its own for the usage, or none; None: on the last


def shape_of(api: ApiSpec, *, thinks: bool, include_usage: bool) -> ReplyShape:
    """The shape that the operator's settings give a reply."""
    return ReplyShape(
        thinks=thinks,
        first_content="" if api.stream_first_delta is FirstDelta.EMPTY_STRING else None,
        reasoning_alias=api.reasoning_alias,
        usage_chunk=include_usage if api.stream_usage is StreamUsage.OPENAI else None,
    )


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """One token of the answer with its logarithm of probability, and the likeliest alternatives.

    `top` is best first.
    """

    data: bytes  # what the token stands for; it may begin or end inside a character
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


class Reply(Protocol):
    """Turns one completion into bytes: any number of `push`, then one `end`."""

    content_type: str
    keep_alive: bytes  # may be sent at any time before `end`, between two results of `push`

    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """The bytes to send now, which may be none. `scored` are the tokens of the answer text."""
        ...

    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The last bytes."""
        ...


class StreamReply:
    """A reply as server-sent events: the first `push` says who speaks, even without pieces."""

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": keep-alive\n\n"

    def __init__(self, head: ReplyHead, shape: ReplyShape = ReplyShape()) -> None:
        self._id = head.id
        self._shape = shape
        self._opened = False
        self._head = b"".join(
            (
                b'data: {"id":',
                to_json(head.id),
                b',"object":"chat.completion.chunk","created":',
                to_json(head.created),
                b',"model":',
                to_json(head.model),
                b',"system_fingerprint":',
                to_json(head.system_fingerprint),
            )
        )
        self._chunk = self._head + b',"choices":[{"index":0,"delta":'
        self._reasoning = self._chunk + b'{"content":null,"reasoning_content":'
        self._answer = self._chunk + b'{"content":'
        # The other part is always there, as null, in a stream that thinks.
        self._no_reasoning = b',"reasoning_content":null' if shape.thinks else b""
        if shape.thinks and shape.reasoning_alias:
            self._no_reasoning += b',"reasoning":null'

    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """One chunk for each piece."""
        chunks = [] if self._opened else [self._open()]
        for piece in pieces:
            match piece:
                case ReasoningText(text):
                    data = to_json(text)
                    chunks += (self._reasoning, data)
                    if self._shape.reasoning_alias:
                        chunks += (b',"reasoning":', data)
                    chunks.append(_NEXT)
                case AnswerText(text):
                    chunks += (self._answer, to_json(text), self._no_reasoning)
                    chunks.append(_scored_next(scored) if scored else _NEXT)
                case ToolCallStart(index, name):
                    call = _tool_call(self._id, index, name, "")
                    chunks += (self._chunk, b'{"tool_calls":[', call, b"]", _NEXT)
                case ToolCallArguments(index, text):
                    call = b'{"index":%d,"function":{"arguments":%b}}' % (index, to_json(text))
                    chunks += (self._chunk, b'{"tool_calls":[', call, b"]", _NEXT)
                case _:
                    assert_never(piece)
        return b"".join(chunks)

    def end(self, reason: FinishReason, usage: Usage) -> bytes:
        """The chunk with the reason, the usage where the shape has it, and the stream's end."""
        apart = self._shape.usage_chunk
        return b"".join(
            (
                b"" if self._opened else self._open(),
                self._answer,
                b'""',
                self._no_reasoning,
                b'},"logprobs":null,"finish_reason":',
                to_json(reason.value),
                b'}],"usage":',
                usage.to_json() if apart is None else b"null",
                b"}\n\n",
                self._usage_chunk(usage) if apart else b"",
                DONE,
            )
        )

    def _usage_chunk(self, usage: Usage) -> bytes:
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._head, usage.to_json())

    def _open(self) -> bytes:
        self._opened = True
        if not self._shape.thinks:
            return b'%b{"role":"assistant","content":""%b' % (self._chunk, _NEXT)
        first = to_json(self._shape.first_content)
        alias = b',"reasoning":""' if self._shape.reasoning_alias else b""
        delta = b'{"role":"assistant","content":%b,"reasoning_content":""%b' % (first, alias)
        return b"".join((self._chunk, delta, _NEXT))


_NEXT = b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'


def _scored_next(scored: Sequence[ScoredToken]) -> bytes:
    content = to_json({"content": scored_tokens(scored)})
    return b'},"logprobs":%b,"finish_reason":null}],"usage":null}\n\n' % content


def scored_tokens(scored: Sequence[ScoredToken]) -> list[dict[str, object]]:
    """The value of `logprobs.content`."""
    return [
        _scored(token.data, token.logprob)
        | {"top_logprobs": [_scored(data, logprob) for data, logprob in token.top]}
        for token in scored
    ]


def _scored(data: bytes, logprob: float) -> dict[str, object]:
    text = data.decode("utf-8", "replace")
    # JSON has no infinity; OpenAI's own value for a token of no probability.
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(data)}


class BodyReply:
    """A reply as one JSON body: everything comes with `end`."""

    content_type = "application/json"
    keep_alive = b"\n"

    def __init__(self, head: ReplyHead, shape: ReplyShape = ReplyShape()) -> None:
        self._head = head
        self._shape = shape
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._calls: list[tuple[str, list[str]]] = []  # name, arguments
        self._scored: list[ScoredToken] = []

    def push(self, pieces: Sequence[Piece], scored: Sequence[ScoredToken] = ()) -> bytes:
        """No bytes."""
        self._scored += scored
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
        logprobs = {"content": scored_tokens(self._scored)} if self._scored else None
        return b"".join(
            (
                b'{"id":',
                to_json(self._head.id),
                b',"object":"chat.completion","created":',
                to_json(self._head.created),
                b',"model":',
                to_json(self._head.model),
                b',"choices":[{"index":0,"message":',
                self._message(),
                b',"logprobs":',
                to_json(logprobs),
                b',"finish_reason":',
                to_json(reason.value),
                b'}],"usage":',
                usage.to_json(),
                b',"system_fingerprint":',
                to_json(self._head.system_fingerprint),
                b"}",
            )
        )

    def _message(self) -> bytes:
        parts = [b'{"role":"assistant","content":', to_json("".join(self._answer))]
        if self._shape.thinks:
            reasoning = to_json("".join(self._reasoning))
            parts += (b',"reasoning_content":', reasoning)
            if self._shape.reasoning_alias:
                parts += (b',"reasoning":', reasoning)
        if self._calls:
            calls = [
                _tool_call(self._head.id, index, name, "".join(arguments))
                for index, (name, arguments) in enumerate(self._calls)
            ]
            parts.append(b',"tool_calls":[' + b",".join(calls) + b"]")
        return b"".join((*parts, b"}"))


def _tool_call(reply_id: str, index: int, name: str, arguments: str) -> bytes:
    """One call in full."""
    return to_json(
        {
            "index": index,
            "id": f"call_{call_id(reply_id, index)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
    )


def call_id(reply_id: str, index: int) -> str:
    """What names the call `index` of a reply, whenever it is asked for: its number and 24 hex."""
    return f"{index:02}_{hashlib.sha256(f'{reply_id}/{index}'.encode()).hexdigest()[:24]}"


def to_json(value: object) -> bytes:
    """JSON that no line reader can break: the line ends that JSON allows in strings are escaped."""
    data = msgspec.json.encode(value)
    if not data.isascii():
        for raw, escaped in _LINE_ENDS:
            data = data.replace(raw, escaped)
    return data


_LINE_ENDS = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")
