"""The KV events of simulated engines: their own block hashes, and what is said of new blocks."""

from collections.abc import Iterator, Sequence

from orchestrator.routing import HASH_MASK, Stored

_HASH_FACTOR = 0x9E3779B97F4A7C1  # odd: the engine's own block hashes, unlike any key of ours


def engine_hash(key: int) -> int:
    """The engine's name for a block."""
    return key * _HASH_FACTOR & HASH_MASK


def stored(
    fresh: Sequence[int], keys: Sequence[int], ids: Sequence[int], block: int
) -> Iterator[Stored]:
    """An event for each run of new blocks that follow each other; `fresh` are their places in the
    prompt, in order, `keys` and `ids` are those of the whole prompt.
    """
    first = 0
    for at in range(1, len(fresh) + 1):
        if at < len(fresh) and fresh[at] == fresh[at - 1] + 1:
            continue
        begin, end = fresh[first], fresh[at - 1] + 1
        yield Stored(
            [engine_hash(key) for key in keys[begin:end]],
            engine_hash(keys[begin - 1]) if begin else None,
            ids[begin * block : end * block],
        )
        first = at
