"""vLLM's KV events, from the frames of its ZeroMQ publisher to routing's values; no I/O.

A message is `[topic, sequence (8 bytes, big-endian), MessagePack]`, and the last one an array
`[made at, events, data-parallel rank]` (vllm 0.32, distributed/kv_events.py). What comes from the
wire is not trusted: whatever it is, the answer is a batch or `BadBatch`.
"""

import hashlib
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from orchestrator.core import R1ServeError
from orchestrator.engines.engine import EngineInfo
from orchestrator.routing import HASH_MASK, Cleared, KvBatch, KvEvent, Removed, Stored

BATCH_BYTES_MAX = 64 << 20  # one step stores at most a few prompts of 160,000 ids
SEQUENCE_BYTES = 8
END_OF_REPLAY = b"\xff" * SEQUENCE_BYTES

_OWN_MEMORY = (None, "GPU")  # vLLM says GPU of its own memory on every device
_MAIN_GROUP = (None, 0)

_Hash = int | bytes


class _Stored(msgspec.Struct, frozen=True, tag="BlockStored", gc=False):
    block_hashes: list[_Hash]
    parent_block_hash: _Hash | None
    token_ids: list[int]
    block_size: int
    medium: str | None = None
    extra_keys: list[list[object] | None] | None = None
    group_idx: int | None = None


class _Removed(msgspec.Struct, frozen=True, tag="BlockRemoved", gc=False):
    block_hashes: list[_Hash]
    medium: str | None = None
    group_idx: int | None = None


class _Cleared(msgspec.Struct, frozen=True, tag="AllBlocksCleared", gc=False):
    pass


class _Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    made_at: float
    events: list[_Stored | _Removed | _Cleared]
    data_parallel_rank: int | None = None


_decode = msgspec.msgpack.Decoder(_Batch).decode


class BadBatch(Exception):
    """A message that is no batch of events; the text says what is wrong with it."""


def decode_batch(sequence: bytes, payload: bytes, block_tokens: int) -> KvBatch:
    """One batch. Raises BadBatch.

    Events of other memories, of other groups than the first and of partial blocks say nothing of
    what a prompt finds in the rank's own cache; they are counted as ignored.
    """
    if len(sequence) != SEQUENCE_BYTES:
        raise BadBatch(f"a sequence number of {len(sequence)} bytes")
    if len(payload) > BATCH_BYTES_MAX:
        raise BadBatch(f"a batch of {len(payload)} bytes; the limit is {BATCH_BYTES_MAX}")
    try:
        batch = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBatch(f"malformed: {error}") from error
    events: list[KvEvent] = []
    ignored = 0
    for event in batch.events:
        if isinstance(event, _Cleared):
            events.append(Cleared())
        elif event.medium not in _OWN_MEMORY or event.group_idx not in _MAIN_GROUP:
            ignored += 1
        elif isinstance(event, _Removed):
            events.append(Removed([_short(hashed) for hashed in event.block_hashes]))
        elif event.block_size != block_tokens or (salt := _salt(event)) is None:
            ignored += 1
        else:
            parent = event.parent_block_hash
            hashes = [_short(hashed) for hashed in event.block_hashes]
            events.append(
                Stored(hashes, None if parent is None else _short(parent), event.token_ids, salt)
            )
    return KvBatch(int.from_bytes(sequence), batch.made_at, tuple(events), ignored)


def _short(hashed: _Hash) -> int:
    """The bits of an engine's hash that the index keeps: of 32 bytes vLLM's int is the low 64."""
    if isinstance(hashed, bytes):
        return int.from_bytes(hashed[-8:]) & HASH_MASK
    return hashed & HASH_MASK


def _salt(event: _Stored) -> str | None:
    """The cache salt of a run; None if more than that went into its hashes (adapters, images)."""
    salt = ""
    for at, keys in enumerate(event.extra_keys or ()):
        if keys is None:
            continue
        if at or event.parent_block_hash is not None or len(keys) != 1:
            return None
        if not isinstance(keys[0], str):
            return None
        salt = keys[0]
    return salt


# --- how an engine hashes ------------------------------------------------------------------------


class HashAlgorithm(StrEnum):
    """vLLM's `--prefix-caching-hash-algo`, those whose hashes are the same in every process."""

    SHA256 = "sha256"  # of a pickle
    SHA256_CBOR = "sha256_cbor"


DEFAULT_SEED = "vllm-none-hash"  # vllm 0.32, v1/core/kv_cache_utils.py DEFAULT_NONE_HASH_SEED


@dataclass(frozen=True, slots=True)
class KvHashing:
    """What must be equal for two engines' blocks to be the same; `algorithm` "": no events."""

    model: str
    block_tokens: int
    algorithm: str = ""
    seed: str = DEFAULT_SEED

    @staticmethod
    def of(info: EngineInfo) -> "KvHashing":
        """What an engine said of itself."""
        if info.kv_events is None:
            return KvHashing(info.model, info.block_size)
        source = info.kv_events
        return KvHashing(info.model, info.block_size, source.hash_algorithm, source.hash_seed)


class HashMismatchError(R1ServeError):
    """An engine cannot share the prefix index of the others."""


def check_hashing(rank: str, expected: KvHashing, found: KvHashing) -> None:
    """Raises HashMismatchError with the two values of the first thing that differs.

    How blocks are hashed matters only where both publish events.
    """
    facts: list[tuple[str, object, object]] = [
        ("model", expected.model, found.model),
        ("block size", expected.block_tokens, found.block_tokens),
    ]
    if expected.algorithm and found.algorithm:
        facts += [
            ("block hash", expected.algorithm, found.algorithm),
            ("hash seed", expected.seed, found.seed),
        ]
    for what, one, other in facts:
        if one != other:
            raise HashMismatchError(
                f"rank {rank} has {what} {other!r}, the others of its model have {one!r}",
                "start all engines of a model with the same flags",
            )
    if found.algorithm and found.algorithm not in list(HashAlgorithm):
        raise HashMismatchError(
            f"rank {rank} hashes blocks by {found.algorithm!r}, each engine with a seed of its own",
            f"start it with --prefix-caching-hash-algo {HashAlgorithm.SHA256_CBOR}",
        )


def block_hashes(hashing: KvHashing, ids: Sequence[int], salt: str = "") -> list[int]:
    """vLLM's hashes of a prompt's full blocks, as the index keeps them."""
    digest = _DIGESTS[HashAlgorithm(hashing.algorithm)]
    parent = digest(hashing.seed)
    size = hashing.block_tokens
    hashes: list[int] = []
    for at in range(0, len(ids) - size + 1, size):
        extra = (("cache_salt", salt),) if salt and not at else None
        parent = digest((parent, tuple(ids[at : at + size]), extra))
        hashes.append(_short(parent))
    return hashes


def _sha256_pickle(value: object) -> bytes:
    return hashlib.sha256(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)).digest()


def _sha256_cbor(value: object) -> bytes:
    return hashlib.sha256(cbor(value)).digest()


_DIGESTS = {
    HashAlgorithm.SHA256: _sha256_pickle,
    HashAlgorithm.SHA256_CBOR: _sha256_cbor,
}


def cbor(value: object) -> bytes:
    """Canonical CBOR (RFC 8949) of what goes into a block hash: ids, bytes, text, tuples, None."""
    match value:
        case None:
            return b"\xf6"
        case int() if value >= 0:
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
        case tuple():
            return _head(4, len(value)) + b"".join(map(cbor, value))
        case _:
            raise TypeError(f"nothing of type {type(value).__name__} is in a block hash")


def _head(major: int, size: int) -> bytes:
    top = major << 5
    if size < 24:
        return bytes((top | size,))
    if size < 1 << 8:
        return bytes((top | 24, size))
    if size < 1 << 16:
        return struct.pack(">BH", top | 25, size)
    if size < 1 << 32:
        return struct.pack(">BI", top | 26, size)
    return struct.pack(">BQ", top | 27, size)


def first_mismatch(hashing: KvHashing, event: Stored) -> tuple[int, int] | None:
    """Checks a run that begins a prompt: our first hash and the engine's if they differ.

    Runs that continue another cannot be checked: None, as if they were equal.
    """
    if event.parent is not None or not event.hashes:
        return None
    ours = block_hashes(hashing, event.token_ids[: hashing.block_tokens], event.salt)
    if not ours or ours[0] == event.hashes[0]:
        return None
    return ours[0], event.hashes[0]
