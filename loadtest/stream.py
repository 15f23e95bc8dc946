"""Reads the bytes of one streamed chat completion, wherever they are cut.

HTTP/1.1 with a chunked, a counted or an unbounded body; in it server-sent events, one line of data
each, as OpenAI's and DeepSeek's API have them. An event that says that the stream goes on is not
decoded: what it carries is found by its bytes. Only other events are decoded as JSON.
"""

from typing import Protocol

import msgspec

from loadtest.phase import Phase

MESSAGE_BYTES = 300  # of a server's own words that are kept
_BODY_BYTES_MAX = 1 << 16  # of an error
_LINE_BYTES_MAX = 1 << 22  # of an event or a header
# Inside a JSON string a quote is written \", so that none of these is ever found in a text.
_GOES_ON = b'"finish_reason":null'
_THINKING = b'"reasoning_content":"'
_ALIAS = b'"reasoning":"'  # vLLM's word
_ANSWER = b'"content":"'
_CALLS = b'"tool_calls":[{'
_ENDED = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
_NO_ERROR = msgspec.Raw(b"null")


class Usage(msgspec.Struct, frozen=True):
    """Tokens, as the server counted them."""

    prompt: int
    cached: int
    thinking: int
    answer: int


class Call(msgspec.Struct):
    """A tool call that a stream asks for."""

    id: str
    name: str
    arguments: str


class Hears(Protocol):
    """What is told of a stream's pieces."""

    def piece(self, phase: Phase, now: float) -> None:
        """Some text of a phase has come; more often than anything else is called."""
        ...


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    reasoning_content: str | None = None
    reasoning: str | None = None
    content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = _NO_ERROR


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamReader:
    """One reply: any number of `feed`, and `closed` if the connection ends; then it is `done`.

    `error` is its class, empty if the stream was read to its end: `http_STATUS`, `stream_error` (an
    error inside the stream), the finish reason of a server that gave up, `protocol`, `cut` (ended
    without saying why). `message` is what the server said. `ended_at` is the instant of its end.
    """

    def __init__(self, hears: Hears, *, keep: bool = False) -> None:
        """`keep`: keeps the text of the answer and its tool calls, for a next turn."""
        self.done = False
        self.error = ""
        self.message = ""
        self.usage: Usage | None = None
        self.ended_at = 0.0
        self.reusable = False  # the connection, once it is done
        self.heard = False  # any byte
        self.answer = ""
        self.calls: list[Call] = []
        self._hears = hears
        self._keep = keep
        self._raw = b""  # of the head, of a chunk's size
        self._in_head = True
        self._in_trailer = False
        self._status = 0
        self._closes = False
        self._chunked = False
        self._chunks_ended = False
        self._counted = False
        self._left = 0  # bytes of the chunk, or of a counted body
        self._between = False  # behind a chunk
        self._line = b""  # begun
        self._body: list[bytes] = []  # of an error
        self._body_bytes = 0
        self._finish = ""
        self._said_done = False

    def feed(self, data: bytes, now: float) -> None:
        """More bytes, at least one."""
        if self.done:
            return
        self.heard = True
        if self._in_head:
            data = self._head(data)
            if self._in_head or self.done:
                return
        if self._chunked:
            data = self._dechunked(data)
        elif self._left:
            data = data[: self._left]
            self._left -= len(data)
        if data:
            if self._status == 200:
                self._lines(data, now)
            else:
                self._collect(data)
        if self._body_ended() and not self.done:
            self._end(now)

    def closed(self, now: float) -> None:
        """The connection has ended: fine where nothing else ends the body."""
        if not self.done:
            self._closes = True
            self._end(now)

    def fail(self, error: str, message: str, now: float) -> None:
        """Ends it for a cause of the client's own."""
        if not self.done:
            self._failed(error, message)
            self._closes = True
            self._end(now)

    # --- HTTP ------------------------------------------------------------------------------------

    def _head(self, data: bytes) -> bytes:
        """Takes the head off; returns the bytes behind it."""
        self._raw += data
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            if len(self._raw) > _BODY_BYTES_MAX:
                self._broken("a head without an end")
            return b""
        head, rest = self._raw[:end], self._raw[end + 4 :]
        self._raw = b""
        first, *lines = head.split(b"\r\n")
        words = first.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            self._broken(f"no HTTP: {first[:60]!r}")
            return b""
        self._status = int(words[1])
        if self._status < 200:
            return self._head(rest) if rest else b""
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        self._in_head = False
        self._chunked = b"chunked" in headers.get(b"transfer-encoding", b"")
        connection = headers.get(b"connection", b"")
        self._closes = connection == b"close" or words[0] == b"HTTP/1.0"
        length = headers.get(b"content-length")
        if not self._chunked and length is not None:
            self._left = int(length) if length.isdigit() else 0
            self._counted = True
        kind = headers.get(b"content-type", b"")
        if self._status == 200 and not kind.startswith(b"text/event-stream"):
            self._broken(f"no stream: its content type is {kind[:60].decode('latin-1')!r}")
        return rest

    def _body_ended(self) -> bool:
        return self._chunks_ended or (self._counted and not self._left)

    def _dechunked(self, data: bytes) -> bytes:
        """The body's bytes among those of its chunks."""
        if self._raw:
            data = self._raw + data
            self._raw = b""
        out: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self._chunks_ended:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._between = not self._left
                out.append(piece)
                continue
            if self._between and data[at : at + 2] == b"\r\n":
                at += 2
                self._between = False
                continue
            end = data.find(b"\r\n", at)
            if end < 0 or (self._between and size - at < 2):
                self._raw = data[at:]
                if len(self._raw) > _BODY_BYTES_MAX:
                    self._broken("a chunk's size without an end")
                break
            if self._between:
                self._broken("no line's end behind a chunk")
                break
            if self._in_trailer:
                self._chunks_ended = end == at
                at = end + 2
                continue
            try:
                self._left = int(data[at:end].partition(b";")[0], 16)
            except ValueError:
                self._broken("no chunk's size where one should be")
                break
            self._in_trailer = not self._left
            at = end + 2
        return out[0] if len(out) == 1 else b"".join(out)

    def _collect(self, data: bytes) -> None:
        if self._body_bytes < _BODY_BYTES_MAX:
            self._body.append(data)
            self._body_bytes += len(data)

    # --- server-sent events ----------------------------------------------------------------------

    def _lines(self, data: bytes, now: float) -> None:
        """Lines are enough: JSON has no line's end inside, and nothing here has two lines of data.

        Comments, blank lines and other fields are passed over.
        """
        lines = (self._line + data if self._line else data).split(b"\n")
        self._line = lines.pop()
        if len(self._line) > _LINE_BYTES_MAX:
            self._broken("a line without an end")
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                self._event(line, now)

    def _event(self, line: bytes, now: float) -> None:
        if _GOES_ON not in line or self._keep:
            self._other_event(line[5:].strip(), now)
            return
        if _says(line, _THINKING) or _says(line, _ALIAS):
            self._hears.piece(Phase.THINKING, now)
        if _says(line, _ANSWER) or _CALLS in line:
            self._hears.piece(Phase.ANSWER, now)

    def _other_event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._said_done = True
            self.ended_at = self.ended_at or now
            return
        try:
            chunk = _decode(data)
        except msgspec.MsgspecError as error:
            self._broken(f"an event that is no chunk of a completion: {error}")
            return
        if bytes(chunk.error) != bytes(_NO_ERROR):
            self._failed("stream_error", bytes(chunk.error).decode("utf-8", "replace"))
        for choice in chunk.choices[:1]:
            if choice.delta is not None:
                self._delta(choice.delta, now)
            if choice.finish_reason is not None:
                self._finish = choice.finish_reason
                self.ended_at = now
                if self._finish not in _ENDED:
                    self._failed(self._finish, f"finish reason {self._finish}")
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)

    def _delta(self, delta: _Delta, now: float) -> None:
        if delta.reasoning_content or delta.reasoning:
            self._hears.piece(Phase.THINKING, now)
        if delta.content or delta.tool_calls:
            self._hears.piece(Phase.ANSWER, now)
        if not self._keep:
            return
        self.answer += delta.content or ""
        for call in delta.tool_calls or ():
            if call.index >= len(self.calls):
                self.calls.append(Call("", "", ""))
            kept = self.calls[min(call.index, len(self.calls) - 1)]
            kept.id = call.id or kept.id
            if call.function is not None:
                kept.name = call.function.name or kept.name
                kept.arguments += call.function.arguments or ""

    # --- its end ---------------------------------------------------------------------------------

    def _end(self, now: float) -> None:
        if not self.error:
            if self._in_head:
                self._failed("cut", "the connection ended before an answer")
            elif self._status != 200:
                body = b"".join(self._body).decode("utf-8", "replace")
                self._failed(f"http_{self._status}", body)
            elif not (self._said_done or self._finish):
                self._failed("cut", "the stream ended without a finish reason")
        self.ended_at = self.ended_at or now
        self.reusable = not self._closes and self._body_ended()
        self.done = True

    def _broken(self, why: str) -> None:
        self._failed("protocol", why)
        self._closes = True
        self.done = True

    def _failed(self, error: str, message: str) -> None:
        self.error = self.error or error
        self.message = self.message or " ".join(message.split())[:MESSAGE_BYTES]


def _says(line: bytes, key: bytes) -> bool:
    """Whether it has the key with a text that is not empty."""
    at = line.find(key)
    return at >= 0 and line[at + len(key) : at + len(key) + 1] != b'"'


def _usage(told: _Usage) -> Usage:
    prompt, completion = told.prompt_tokens_details, told.completion_tokens_details
    cached = prompt.cached_tokens if prompt is not None else None
    if cached is None:
        cached = told.prompt_cache_hit_tokens
    thinking = (completion.reasoning_tokens if completion is not None else None) or 0
    return Usage(told.prompt_tokens, cached or 0, thinking, told.completion_tokens - thinking)
