"""The fake engine's KV transfer: who holds which prompt's KV, and its single-use pull over UDP.

No KV moves. A pull proves that the rank that produced it lives, still holds it, holds it for this
prompt, and has given it to nobody else, which is what can go wrong in a real transfer.
"""

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec
from typing_extensions import override

from orchestrator.core import TokenIds
from orchestrator.engines.engine import KvParams, Submit

_RESEND_S = 0.05  # datagrams may be dropped
_NOT_YET = "not yet"


class _Params(msgspec.Struct, frozen=True):
    """`KvParams` of the fake engine."""

    remote_engine_id: str
    remote_request_id: str
    remote_host: str
    remote_port: int
    remote_num_tokens: int
    checksum: int


class _Peer(msgspec.Struct, frozen=True):
    """What `peer` says of an engine."""

    remote_engine_id: str
    remote_host: str
    remote_port: int


class _Pull(msgspec.Struct, frozen=True, array_like=True, tag=1):
    puller: str  # the same in each copy of one pull
    engine_id: str
    request_id: str
    checksum: int
    patient: bool = False  # the prefill may still run


class _Answer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    puller: str
    cause: str  # why there is no KV; empty: here it is


@dataclass(slots=True)
class _Held:
    checksum: int
    blocks: int
    until: float
    peer: str = ""  # the one engine that may pull it; empty: any
    puller: str = ""  # who got it


@dataclass(slots=True)
class _Waiting:
    datagram: bytes
    address: tuple[str, int]
    until: float
    on_done: Callable[[str], None]


class FakeKvStore(asyncio.DatagramProtocol):
    """Holds what one engine produced and pulls what others did."""

    def __init__(self, engine_id: str, hold_s: float, pull_s: float) -> None:
        self._engine_id = engine_id
        self._hold_s = hold_s
        self._pull_s = pull_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._held: dict[str, _Held] = {}  # by request id, the oldest first
        self._waiting: dict[str, _Waiting] = {}  # by puller
        self._pulls = 0
        self._decode = msgspec.msgpack.Decoder(_Pull | _Answer).decode
        self._encode = msgspec.msgpack.Encoder().encode

    async def open(self, host: str) -> None:
        """Can be pulled from, and pull, from now on."""
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))

    def close(self) -> None:
        """Forgets everything; pulls that wait are never answered."""
        if self._transport is not None:
            self._transport.close()
        self._held.clear()
        self._waiting.clear()

    def held_blocks(self) -> int:
        """KV blocks that nobody has pulled yet; what was held for too long is dropped here."""
        now = self._loop.time()
        while self._held and now >= (oldest := next(iter(self._held.items())))[1].until:
            del self._held[oldest[0]]
        return sum(held.blocks for held in self._held.values())

    def peer(self) -> KvParams:
        """What the other rank of a pair must know of this one."""
        host, port = self._address()
        return msgspec.structs.asdict(_Peer(self._engine_id, host, port))

    def hold(self, submit: Submit, blocks: int) -> KvParams:
        """Keeps a prompt's KV for one pull; returns what the puller must present."""
        host, port = self._address()
        until = self._loop.time() + self._hold_s
        held = _Held(_checksum(submit.prompt_ids), blocks, until)
        request_id = submit.request_id
        if submit.pair is not None:
            request_id = submit.pair.transfer_id
            held.peer = str(submit.pair.peer.get("remote_engine_id", ""))
        self._held[request_id] = held
        params = _Params(
            remote_engine_id=self._engine_id,
            remote_request_id=request_id,
            remote_host=host,
            remote_port=port,
            remote_num_tokens=len(submit.prompt_ids),
            checksum=held.checksum,
        )
        return msgspec.structs.asdict(params)

    def pull(self, submit: Submit, on_done: Callable[[str], None]) -> int:
        """Calls `on_done` later with "" or the cause of the failure; returns the tokens pulled.

        Without a reference it is the pair's, which is waited for until its prefill has ended.
        """
        prompt_ids = submit.prompt_ids
        patient = submit.kv_params is None
        try:
            wanted = (
                self._of_pair(submit) if patient else msgspec.convert(submit.kv_params, _Params)
            )
        except msgspec.ValidationError as error:
            self._loop.call_soon(on_done, f"not KV parameters of a fake engine: {error}")
            return 0
        if not 0 < wanted.remote_num_tokens <= len(prompt_ids):
            self._loop.call_soon(on_done, "the prompt is shorter than the KV to pull")
            return 0
        self._pulls += 1
        puller = f"{self._engine_id}/{self._address()[1]}/{self._pulls}"
        checksum = _checksum(prompt_ids[: wanted.remote_num_tokens])
        pull = _Pull(puller, wanted.remote_engine_id, wanted.remote_request_id, checksum, patient)
        until = self._loop.time() + self._pull_s
        address = (wanted.remote_host, wanted.remote_port)
        self._waiting[puller] = _Waiting(self._encode(pull), address, until, on_done)
        self._send(puller)
        return wanted.remote_num_tokens

    def _of_pair(self, submit: Submit) -> _Params:
        assert submit.pair is not None
        peer = msgspec.convert(submit.pair.peer, _Peer)
        return _Params(
            remote_engine_id=peer.remote_engine_id,
            remote_request_id=submit.pair.transfer_id,
            remote_host=peer.remote_host,
            remote_port=peer.remote_port,
            remote_num_tokens=len(submit.prompt_ids),
            checksum=0,
        )

    def _address(self) -> tuple[str, int]:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        try:
            message: _Pull | _Answer = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # anybody can send us anything
        match message:
            case _Pull():
                assert self._transport is not None
                answer = _Answer(message.puller, self._give(message))
                self._transport.sendto(self._encode(answer), addr)
            case _Answer():
                waiting = self._waiting.get(message.puller)
                if waiting is None:
                    return
                if message.cause == _NOT_YET:  # its rank lives
                    waiting.until = self._loop.time() + self._pull_s
                    return
                del self._waiting[message.puller]
                waiting.on_done(message.cause)

    def _send(self, puller: str) -> None:
        waiting = self._waiting.get(puller)
        if waiting is None or self._transport is None or self._transport.is_closing():
            return
        if self._loop.time() >= waiting.until:
            del self._waiting[puller]
            waiting.on_done("the rank that holds the KV does not answer")
            return
        self._transport.sendto(waiting.datagram, waiting.address)
        self._loop.call_later(_RESEND_S, self._send, puller)

    def _give(self, pull: _Pull) -> str:
        held = self._held.get(pull.request_id)
        if pull.engine_id != self._engine_id:
            return f"this is engine {self._engine_id}, not {pull.engine_id}"
        if held is None and pull.patient:
            return _NOT_YET
        if held is None or self._loop.time() >= held.until:
            return "the KV is unknown, or was held for too long"
        if held.puller not in {"", pull.puller}:
            return "the KV was pulled before"
        if held.peer and not pull.puller.startswith(f"{held.peer}/"):
            return f"the KV is bound to engine {held.peer}"
        if held.checksum != pull.checksum:
            return "the KV is of another prompt"
        held.puller = pull.puller
        held.blocks = 0
        return ""


def _checksum(ids: TokenIds) -> int:
    return zlib.crc32(ids)
