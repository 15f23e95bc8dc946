"""Our recomputation of block hashes and our decoding of KV events, against the installed vLLM."""

import random

import msgspec
import pytest

from orchestrator.engines.kv_events import (
    HashAlgorithm,
    KvHashing,
    block_hashes,
    decode_batch,
)
from orchestrator.routing import HASH_MASK, Cleared, Removed, Stored

pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

BLOCK = 16
CHANCE = random.Random(7)
IDS = [CHANCE.randrange(129_280) for _ in range(10 * BLOCK + 5)]


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("salt", ["", "tenant-7"])
@pytest.mark.parametrize("seed", [None, "0", "a seed"])
def test_block_hashes_are_vllms(
    algorithm: HashAlgorithm, salt: str, seed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils

    if seed is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    function = get_hash_fn_by_name(algorithm)
    kv_cache_utils.init_none_hash(function)
    theirs: list[int] = []
    parent = None
    for at in range(0, len(IDS) - BLOCK + 1, BLOCK):
        extra = (("cache_salt", salt),) if salt and not at else None
        block = IDS[at : at + BLOCK]
        parent = kv_cache_utils.hash_block_tokens(function, parent, block, extra)
        theirs.append(int.from_bytes(parent) & HASH_MASK)
    resolved = kv_cache_utils.resolve_none_hash_seed(function)
    ours = block_hashes(KvHashing("m", BLOCK, algorithm, resolved), IDS, salt)
    assert ours == theirs


def test_events_are_decoded_as_vllm_encodes_them() -> None:
    from vllm.distributed.kv_events import (
        AllBlocksCleared,
        BlockRemoved,
        BlockStored,
        KVEventBatch,
    )

    stored = BlockStored(
        block_hashes=[1, 2],
        parent_block_hash=None,
        token_ids=IDS[: 2 * BLOCK],
        block_size=BLOCK,
        lora_id=None,
        medium="GPU",
        lora_name=None,
        extra_keys=[("tenant",), None],
        group_idx=0,
        kv_cache_spec_kind="mla_attention",
        session_id="s",
    )
    removed = BlockRemoved(block_hashes=[2], medium="GPU", group_idx=0)
    offloaded = BlockRemoved(block_hashes=[1], medium="CPU", group_idx=0)
    events = [stored, removed, offloaded, AllBlocksCleared()]
    payload = msgspec.msgpack.encode(KVEventBatch(ts=1.5, events=events, data_parallel_rank=3))
    batch = decode_batch((7).to_bytes(8), payload, BLOCK)
    assert (batch.sequence, batch.made_at, batch.ignored) == (7, 1.5, 1)
    assert batch.events == (
        Stored([1, 2], None, IDS[: 2 * BLOCK], "tenant"),
        Removed([2]),
        Cleared(),
    )
