"""What an engine says of its KV blocks, as values; whoever decodes them is a host."""

from collections.abc import Sequence
from dataclasses import dataclass

HASH_MASK = (1 << 60) - 1  # of an engine's block hash, what we keep: see keys.KEY_BITS


@dataclass(frozen=True, slots=True)
class Stored:
    """Blocks that the rank now holds: a run, of which each block continues the one before.

    `hashes` and `parent` are the engine's own, cut to `HASH_MASK`; `token_ids` are those of all
    blocks together. `salt` is of the first block of a prompt, and only if `parent` is None.
    """

    hashes: list[int]
    parent: int | None
    token_ids: Sequence[int]
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """Blocks that the rank no longer holds; of a block stored twice one copy is left."""

    hashes: list[int]


@dataclass(frozen=True, slots=True)
class Cleared:
    """The rank holds nothing any more."""


KvEvent = Stored | Removed | Cleared


@dataclass(frozen=True, slots=True)
class KvBatch:
    """The events of one engine step; `sequence` grows by one from batch to batch of one life.

    `made_at` is the publisher's own clock: only two batches of one publisher may be compared by it.
    """

    sequence: int
    made_at: float
    events: tuple[KvEvent, ...]
    ignored: int = 0  # events that say nothing of full blocks in the rank's own memory
