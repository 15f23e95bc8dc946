"""The frames of a token channel and their bytes: a 4-byte big-endian length, then MessagePack.

    gateway                          engine
    Hello -------------------------> Welcome | Refuse and cut
    Open, Cancel, Beat ------------> Tokens, Ended, Beat, Refuse and cut

A frame is an array whose first element is its tag. New fields go to the end and have a default;
anything else is a new `VERSION`.
"""

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from orchestrator.core import Role, TokenIds, TokenLogprob
from orchestrator.engines.engine import End, EngineInfo, EngineLoad, Submit
from orchestrator.fleet.doctor import Vitals
from orchestrator.handoff import Word
from orchestrator.routing import Credit

VERSION = 2
NOTHING = Credit(0, 0.0)

_LENGTH = struct.Struct(">I")
_LENGTH_BYTES = 4
_INT_BYTES = 9  # the most that MessagePack takes for an int
_UPDATE_BYTES = 2 * _INT_BYTES  # a handle and an array header
_TOKENS_BYTES = 64  # a Tokens frame without its updates
_LOGPROB_BYTES = 15  # an array of a float and an array
_ALTERNATIVE_BYTES = 1 + _INT_BYTES + 9  # an array of an id and a float


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The gateway's first frame. `engine_id` is the engine it means to reach: ports are reused."""

    version: int
    gateway_id: str
    engine_id: str
    token: str  # the secret that both sides share; empty if there is none


class Open(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Starts a request. `handle` grows from one Open of a connection to the next."""

    handle: int
    submit: Submit


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Asks for the end of a request; of one that has ended it is ignored."""

    handle: int


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The gateway's heartbeat. One with `drain_s` is the wish that the rank drains from now on: see
    `Beat`. Who looks after the gang sends it. `word` is for the rank's other gateways.
    """

    drain_s: float | None = None
    word: Word | None = None
    look: bool = False  # asks for a Beat with vitals; older engines do not answer that


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The engine's answer to a Hello, with the bounds that the gateway must keep."""

    engine_id: str
    role: Role
    info: EngineInfo
    max_requests: int
    max_frame_bytes: int


class Refuse(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The engine's last frame on a connection that it cuts."""

    cause: str


class Tokens(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """The new tokens of one engine step: `ids[i]` belong to request `handles[i]`; equal lengths.

    `logprobs` is empty if no request of the step wants any; otherwise `logprobs[i]` is empty or as
    long as `ids[i]`.
    """

    handles: list[int]
    ids: list[list[int]]
    logprobs: list[list[TokenLogprob]] = []


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """The end of one request; the last frame that names its handle."""

    handle: int
    end: End


class Beat(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """The engine's heartbeat. Also sent when what other gateways have in flight has changed, and
    when the rank begins to drain.

    A rank that drains gets nothing new; what runs there may go on for another `drain_s` seconds,
    and is moved then. `word` is what another gateway has just said.
    """

    load: EngineLoad
    others: Credit = NOTHING
    drain_s: float | None = None  # None: it does not drain
    word: Word | None = None
    vitals: Vitals | None = None  # the answer to a Pulse that asks for them


FromGateway = Hello | Open | Cancel | Pulse
FromEngine = Welcome | Refuse | Tokens | Ended | Beat
Message = TypeVar("Message")
Item = TypeVar("Item")


def _packed(value: object) -> bytes:
    """Prompt ids as they lie in memory: 32 bits each, little-endian on every machine we run on."""
    assert isinstance(value, array), type(value)
    return bytes(value)


def _unpacked(kind: type, value: object) -> object:
    if kind is not array:
        return value  # of KV parameters, which are the engines' own
    if not isinstance(value, bytes) or len(value) % 4:
        raise ValueError("prompt ids are bytes, four for each")
    ids: TokenIds = array("I")
    ids.frombytes(value)
    return ids


_encode = msgspec.msgpack.Encoder(enc_hook=_packed).encode


class FrameError(Exception):
    """The peer's bytes are not what this protocol allows; the message names the cause."""


def frame(message: FromGateway | FromEngine) -> bytes:
    """The bytes of one frame, length included."""
    payload = _encode(message)
    return _LENGTH.pack(len(payload)) + payload


def payload_bytes(framed: bytes) -> int:
    """The size that a frame counts with against `max_frame_bytes`."""
    return len(framed) - _LENGTH_BYTES


def split_tokens(
    pending: dict[int, list[int]], logprobs: dict[int, list[TokenLogprob]], max_frame_bytes: int
) -> Tokens:
    """Takes from `pending` what surely fits one frame, at least one id, in order.

    `logprobs` has those of the requests that want them, one for each pending id.
    """
    assert pending
    room = max_frame_bytes - _TOKENS_BYTES
    if logprobs:
        return _split_with_logprobs(pending, logprobs, room)
    if len(pending) * _UPDATE_BYTES + sum(map(len, pending.values())) * _INT_BYTES <= room:
        taken = Tokens(list(pending), list(pending.values()))
        pending.clear()
        return taken
    handles: list[int] = []
    parts: list[list[int]] = []
    for handle in list(pending):
        ids_max = (room - _UPDATE_BYTES) // _INT_BYTES
        if handles and ids_max < 1:
            break
        part = _cut(pending, handle, max(1, ids_max))
        handles.append(handle)
        parts.append(part)
        room -= _UPDATE_BYTES + len(part) * _INT_BYTES
        if handle in pending:
            break
    return Tokens(handles, parts)


def _split_with_logprobs(
    pending: dict[int, list[int]], logprobs: dict[int, list[TokenLogprob]], room: int
) -> Tokens:
    handles: list[int] = []
    parts: list[list[int]] = []
    logprob_parts: list[list[TokenLogprob]] = []
    for handle, ids in list(pending.items()):
        room -= _UPDATE_BYTES + _INT_BYTES  # and the header of its logprobs
        of_ids = logprobs.get(handle, ())
        fitting, room = _fitting(len(ids), of_ids, room)
        if handles and not fitting:
            break
        fitting = max(1, fitting)
        handles.append(handle)
        parts.append(_cut(pending, handle, fitting))
        logprob_parts.append(_cut(logprobs, handle, fitting) if of_ids else [])
        if handle in pending:
            break
    return Tokens(handles, parts, logprob_parts)


def _fitting(ids: int, logprobs: Sequence[TokenLogprob], room: int) -> tuple[int, int]:
    """How many of a request's ids surely fit, and the room that they leave."""
    if not logprobs:
        fitting = max(0, min(ids, room // _INT_BYTES))
        return fitting, room - fitting * _INT_BYTES
    for at, logprob in enumerate(logprobs):
        size = _INT_BYTES + _LOGPROB_BYTES + len(logprob.top) * _ALTERNATIVE_BYTES
        if size > room:
            return at, room
        room -= size
    return ids, room


def _cut(held: dict[int, list[Item]], handle: int, most: int) -> list[Item]:
    """Takes the first `most` of what a request has, and its entry if nothing is left."""
    items = held.pop(handle)
    if len(items) > most:
        held[handle] = items[most:]
        return items[:most]
    return items


class FrameReader(Generic[Message]):
    """Cuts a byte stream into messages; holds at most one unfinished frame."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Message], max_frame_bytes: int) -> None:
        self._decode = decoder.decode
        self._max_frame_bytes = max_frame_bytes
        self._held = bytearray()
        self._wanted = _LENGTH_BYTES  # bytes that `_held` must have before it is worth a look

    def feed(self, data: bytes) -> Iterator[Message]:
        """Each message that `data` completes, in order. Raises FrameError at the first bad frame;
        what came before it has been yielded, however the stream was chunked.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held.clear()
        view = memoryview(data)
        at, end = 0, len(data)
        wanted = _LENGTH_BYTES
        while end - at >= _LENGTH_BYTES:
            (size,) = _LENGTH.unpack_from(data, at)
            if size > self._max_frame_bytes:
                raise FrameError(f"a frame of {size} bytes; the limit is {self._max_frame_bytes}")
            if end - at < _LENGTH_BYTES + size:
                wanted = _LENGTH_BYTES + size
                break
            at += _LENGTH_BYTES + size
            yield self._message(view[at - size : at])
        self._wanted = wanted
        self._held += view[at:]

    def _message(self, payload: memoryview) -> Message:
        try:
            return self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"a malformed frame: {error}") from error


def gateway_reader(max_frame_bytes: int) -> FrameReader[FromGateway]:
    """Reads what a gateway sends."""
    return FrameReader(msgspec.msgpack.Decoder(FromGateway, dec_hook=_unpacked), max_frame_bytes)


def engine_reader(max_frame_bytes: int) -> FrameReader[FromEngine]:
    """Reads what an engine sends."""
    return FrameReader(msgspec.msgpack.Decoder(FromEngine), max_frame_bytes)
