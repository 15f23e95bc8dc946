"""Keys of KV blocks: our own chained hash of token ids, cheap enough for every prompt.

An engine's block hash (SHA-256 over CBOR) would take ten times as long to compute as the whole
decision may take. A key here decides where a request goes and never whose KV it reads: a collision
costs a wrong prediction and nothing else, so speed comes before strength. Python hashes ints and
tuples of them without a seed: the same ids have the same keys in every process.
"""

from collections.abc import Iterable
from hashlib import blake2b

KEY_BITS = 60  # an int of 60 bits takes 32 bytes, one of 64 bits 48

_DROPPED_BITS = 64 - KEY_BITS
_MASK = (1 << KEY_BITS) - 1


def root_key(salt: str = "") -> int:
    """The key that a prompt's first block continues; prompts of two salts share no key."""
    if not salt:
        return 0
    return int.from_bytes(blake2b(salt.encode(), digest_size=8).digest()) >> _DROPPED_BITS


def chain_keys(parent: int, ids: Iterable[int], block_tokens: int) -> list[int]:
    """The keys of the full blocks of `ids`, which continue the block (or root) `parent`."""
    # zip reuses its tuple, so that no block is ever copied
    blocks = zip(*[iter(ids)] * block_tokens, strict=False)
    keys: list[int] = []
    append = keys.append
    key = parent
    for block in map(hash, blocks):
        key = hash((key, block)) & _MASK
        append(key)
    return keys


def prompt_keys(ids: Iterable[int], block_tokens: int, salt: str = "") -> list[int]:
    """The keys of a prompt's full blocks, in order."""
    return chain_keys(root_key(salt), ids, block_tokens)
