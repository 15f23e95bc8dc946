"""vLLM's KV events as values, and how its hashes are recomputed. Vectors are of vLLM 0.32."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines import EngineInfo, KvEventSource
from orchestrator.engines.kv_events import (
    BATCH_BYTES_MAX,
    BadBatch,
    HashAlgorithm,
    HashMismatchError,
    KvHashing,
    block_hashes,
    check_hashing,
    decode_batch,
    first_mismatch,
)
from orchestrator.routing import Cleared, Removed, Stored

SEQUENCE = (5).to_bytes(8)
IDS = [0, 1, 23, 24, 255, 256, 65535, 65536, 128000, 128799, 7, 7, 7, 7, 7, 7]
STORED: dict[str, object] = {
    "type": "BlockStored",
    "block_hashes": [6522045006455570523, 9939604838047613594],
    "parent_block_hash": None,
    "token_ids": [1, 2, 3, 4],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
}
MASK = (1 << 60) - 1


def payload(*events: dict[str, object]) -> bytes:
    return msgspec.msgpack.encode([12.5, list(events), 0])


def test_a_captured_batch_is_read() -> None:
    removed: dict[str, object] = {
        "type": "BlockRemoved",
        "block_hashes": [3753563854825738204],
        "medium": "GPU",
        "group_idx": 0,
        "locality": None,
        "ownership": None,
    }
    batch = decode_batch(SEQUENCE, payload(STORED, removed, {"type": "AllBlocksCleared"}), 2)
    assert (batch.sequence, batch.made_at, batch.ignored) == (5, 12.5, 0)
    assert batch.events == (
        Stored([6522045006455570523 & MASK, 9939604838047613594 & MASK], None, [1, 2, 3, 4]),
        Removed([3753563854825738204 & MASK]),
        Cleared(),
    )


def test_hashes_of_32_bytes_are_the_same_as_their_ints() -> None:
    digest = bytes(range(32))
    event = STORED | {"block_hashes": [digest], "token_ids": [1, 2]}
    (stored,) = decode_batch(SEQUENCE, payload(event), 2).events
    assert isinstance(stored, Stored)
    assert stored.hashes == [int.from_bytes(digest) & MASK]


@pytest.mark.parametrize(
    ("extra_keys", "salt"),
    [(None, ""), ([None, None], ""), ([["tenant"], None], "tenant")],
)
def test_the_salt_is_read_from_the_first_block(extra_keys: object, salt: str) -> None:
    (stored,) = decode_batch(SEQUENCE, payload(STORED | {"extra_keys": extra_keys}), 2).events
    assert isinstance(stored, Stored)
    assert stored.salt == salt


@pytest.mark.parametrize(
    "change",
    [
        {"medium": "CPU"},
        {"group_idx": 1},
        {"block_size": 4},
        {"extra_keys": [["adapter", "salt"], None]},
        {"extra_keys": [None, [["image", 3]]]},
    ],
)
def test_what_says_nothing_of_the_ranks_own_full_blocks_is_ignored_and_counted(
    change: dict[str, object],
) -> None:
    batch = decode_batch(SEQUENCE, payload(STORED | change), 2)
    assert (batch.events, batch.ignored) == ((), 1)


@pytest.mark.parametrize(
    ("sequence", "data", "cause"),
    [
        (b"", payload(), "0 bytes"),
        (b"123456789", payload(), "9 bytes"),
        (SEQUENCE, b"", "malformed"),
        (SEQUENCE, b"\xc1", "malformed"),
        (SEQUENCE, payload({"type": "BlockMoved"}), "malformed"),
        (SEQUENCE, payload(STORED | {"token_ids": ["x"]}), "malformed"),
        (SEQUENCE, msgspec.msgpack.encode({"ts": 1}), "malformed"),
        (SEQUENCE, b"\x91" * 5000, "malformed"),
    ],
)
def test_anything_else_is_a_bad_batch(sequence: bytes, data: bytes, cause: str) -> None:
    with pytest.raises(BadBatch, match=cause):
        decode_batch(sequence, data, 2)


def test_an_oversized_batch_is_not_even_looked_at() -> None:
    with pytest.raises(BadBatch, match="limit"):
        decode_batch(SEQUENCE, bytes(BATCH_BYTES_MAX + 1), 2)


@given(st.binary(max_size=200), st.binary(max_size=9))
def test_no_bytes_do_more_than_that(data: bytes, sequence: bytes) -> None:
    try:
        decode_batch(sequence, data, 2)
    except BadBatch:
        pass


# --- hashing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "salt", "expected"),
    [
        (
            HashAlgorithm.SHA256,
            "",
            [0xD8C990B3CFC4B64, 0x5186EBEC251F6F6, 0xCDA257628049B39, 0xA8045EBD172452C],
        ),
        (
            HashAlgorithm.SHA256,
            "tenant-7",
            [0x5502B983E48350D, 0xC26BD2A7F86B3A4, 0xA35FB60B0D91E52, 0x89A5F0990881619],
        ),
        (
            HashAlgorithm.SHA256_CBOR,
            "",
            [0xAC75C989D90EE6C, 0xCA592DFF2C05659, 0x6CAFBBE5C1FFFD3, 0x9C7A0369A554AE1],
        ),
        (
            HashAlgorithm.SHA256_CBOR,
            "tenant-7",
            [0x939139E531FBC0B, 0x4DB658332E22B7E, 0x4865858BA597359, 0x57C59D61C707740],
        ),
    ],
)
def test_block_hashes_are_vllms(algorithm: HashAlgorithm, salt: str, expected: list[int]) -> None:
    assert block_hashes(KvHashing("m", 4, algorithm), IDS, salt) == expected


def test_a_run_whose_hash_is_another_is_noticed() -> None:
    hashing = KvHashing("m", 4, HashAlgorithm.SHA256_CBOR)
    hashes = block_hashes(hashing, IDS)
    assert first_mismatch(hashing, Stored(hashes, None, IDS)) is None
    other = first_mismatch(hashing, Stored([1, *hashes[1:]], None, IDS))
    assert other == (hashes[0], 1)
    assert first_mismatch(hashing, Stored([1], 77, IDS[:4])) is None, "cannot be checked"


def info(**changes: object) -> EngineInfo:
    source = KvEventSource("tcp://*:1", hash_algorithm="sha256_cbor", hash_seed="s")
    return msgspec.structs.replace(
        EngineInfo("vllm", "R1", 1000, 64, 100, kv_events=source), **changes
    )


@pytest.mark.parametrize(
    ("found", "values"),
    [
        (info(block_size=16), ("block size", "16", "64")),
        (info(model="V3"), ("model", "V3", "R1")),
        (
            info(kv_events=KvEventSource("x", hash_algorithm="sha256", hash_seed="s")),
            ("block hash", "sha256", "sha256_cbor"),
        ),
        (
            info(kv_events=KvEventSource("x", hash_algorithm="sha256_cbor", hash_seed="t")),
            ("hash seed", "t", "s"),
        ),
    ],
)
def test_an_engine_that_differs_is_refused_with_the_two_values(
    found: EngineInfo, values: tuple[str, str, str]
) -> None:
    what, theirs, ours = (re.escape(value) for value in values)
    with pytest.raises(HashMismatchError, match=f"{what} '?{theirs}'?, the others .* '?{ours}'?"):
        check_hashing("gang/0", KvHashing.of(info()), KvHashing.of(found))


def test_an_engine_without_events_needs_the_same_model_and_block_size_only() -> None:
    check_hashing("gang/0", KvHashing.of(info()), KvHashing.of(info(kv_events=None)))
    check_hashing("gang/0", KvHashing.of(info(kv_events=None)), KvHashing.of(info()))


def test_hashes_with_a_seed_of_each_process_are_refused() -> None:
    source = KvEventSource("tcp://*:1", hash_algorithm="xxhash", hash_seed="random")
    hashing = KvHashing.of(info(kv_events=source))
    with pytest.raises(HashMismatchError, match="sha256_cbor"):
        check_hashing("gang/0", hashing, hashing)
