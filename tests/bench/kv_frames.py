"""Bytes as vLLM 0.32 publishes them, for benchmarks and tests that have no vLLM."""

import msgspec

from orchestrator.routing import HASH_MASK


def stored_frame(seed: int, ids: list[int], block: int) -> bytes:
    """One batch with one BlockStored of a whole prompt."""
    hashes = [(seed << 32 | at) * 0x9E3779B97F4A7C1 & HASH_MASK for at in range(len(ids) // block)]
    event = {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": None,
        "token_ids": ids,
        "block_size": block,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * len(hashes),
        "group_idx": 0,
        "kv_cache_spec_kind": "mla_attention",
    }
    return msgspec.msgpack.encode([1_795_448_954.74, [event], 0])
