"""Keys of KV blocks: our own chained hash of token ids, cheap enough for every prompt.

An engine's block hash (SHA-256 over CBOR) would take ten times as long to compute as the whole
decision may take. A key here decides where a request goes and never whose KV it reads: a collision
costs a wrong prediction and nothing else, so speed comes before strength. A key is a polynomial in
the ids before it, modulo 2^60, with fixed odd weights: the same ids have the same keys in every
process.
"""

from __future__ import annotations  # numpy is loaded with the first prompt, not with every command

from array import array
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from orchestrator.core import token_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEY_BITS = 60  # an int of 60 bits takes 32 bytes, one of 64 bits 48

_DROPPED_BITS = 64 - KEY_BITS
_MASK = (1 << KEY_BITS) - 1
_STEP = 0xD1342543DE82EF95  # by which a key is multiplied from block to block
_EACH = 0x9E3779B97F4A7C15  # added with each block: zeros are no nothing
_POWERS_AT_ONCE = 4096


def root_key(salt: str = "") -> int:
    """The key that a prompt's first block continues; prompts of two salts share no key."""
    if not salt:
        return 0
    return int.from_bytes(blake2b(salt.encode(), digest_size=8).digest()) >> _DROPPED_BITS


def chain_keys(parent: int, ids: Sequence[int], block_tokens: int) -> list[int]:
    """The keys of the full blocks of `ids`, which continue the block (or root) `parent`.

    Much faster if `ids` are packed already.
    """
    import numpy as np

    if not isinstance(ids, array):
        ids = token_ids(ids)
    blocks = len(ids) // block_tokens
    if not blocks:
        return []
    table = np.frombuffer(ids, np.uint32, blocks * block_tokens).reshape(blocks, block_tokens)
    own = table.astype(np.uint64) @ _weights(block_tokens) + np.uint64(_EACH)
    # key[n] = key[n - 1] * STEP + own[n], all at once: divided by STEP^n it is a running sum
    ups, downs = _powers(-(-blocks // _POWERS_AT_ONCE))
    sums = np.add.accumulate(own * downs[:blocks]) + np.uint64(parent)
    keys: list[int] = (sums * ups[:blocks] & np.uint64(_MASK)).tolist()
    return keys


def prompt_keys(ids: Sequence[int], block_tokens: int, salt: str = "") -> list[int]:
    """The keys of a prompt's full blocks, in order."""
    return chain_keys(root_key(salt), ids, block_tokens)


@cache
def _weights(tokens: int) -> NDArray[np.uint64]:
    """An odd number for each place in a block."""
    import numpy as np

    drawn = b"".join(blake2b(b"%d" % at, digest_size=8).digest() for at in range(tokens))
    return np.frombuffer(drawn, "<u8").astype(np.uint64) | np.uint64(1)


@cache
def _powers(pages: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """`_STEP` to the power of 1, 2, ..., and their inverses modulo 2^64."""
    import numpy as np

    inverse = pow(_STEP, -1, 1 << 64)
    ups, downs = (
        np.multiply.accumulate(np.full(pages * _POWERS_AT_ONCE, number, np.uint64))
        for number in (_STEP, inverse)
    )
    return ups, downs
