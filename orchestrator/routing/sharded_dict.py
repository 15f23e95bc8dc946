"""A large dict of ints under churn: small in memory, and never busy for long at once.

CPython makes a dict two to four times as large when it is full of entries that were deleted, and
does so in one go: at a million entries that takes tens of milliseconds. Small dicts, each rebuilt
in time, take a millisecond each and stay below 70 bytes an entry (20 for a slot, at most 3.4 of
them).
"""

from collections.abc import Iterable, Iterator
from itertools import islice

SHARDS = 64
_LOW = SHARDS - 1


class ShardedDict:
    """int -> int that is not 0, by the keys' low bits, which are to be evenly spread."""

    __slots__ = ("_room", "_shards", "entries")

    def __init__(self) -> None:
        self.entries = 0
        self._shards: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self._room = [0] * SHARDS  # new keys that a shard takes before it is looked at

    def get(self, key: int) -> int:
        """The value, 0 if there is none."""
        return self._shards[key & _LOW].get(key, 0)

    def get_all(self, keys: Iterable[int]) -> list[int]:
        """The values, 0 for each that is not there."""
        shards = self._shards
        return [shards[key & _LOW].get(key, 0) for key in keys]

    def put(self, key: int, value: int) -> None:
        """Sets the value."""
        low = key & _LOW
        shard = self._shards[low]
        if key not in shard:
            if not self._room[low]:
                shard = self._rebuild(low)
            self._room[low] -= 1
            self.entries += 1
        shard[key] = value

    def pop(self, key: int) -> None:
        """Drops the entry, if there is one."""
        if self._shards[key & _LOW].pop(key, 0):
            self.entries -= 1

    def __iter__(self) -> Iterator[int]:
        for shard in self._shards:
            yield from shard

    def items(self) -> Iterator[tuple[int, int]]:
        """All entries."""
        for shard in self._shards:
            yield from shard.items()

    def shard(self, number: int) -> list[tuple[int, int]]:
        """The entries of one of the `SHARDS`."""
        return list(self._shards[number].items())

    def oldest(self, entries: int) -> list[int]:
        """Some of the keys that were put first, about so many."""
        each = -(-entries // SHARDS)
        return [key for shard in self._shards for key in islice(shard, each)]

    def _rebuild(self, low: int) -> dict[int, int]:
        """Leaves out what was deleted if that makes room; otherwise the shard may grow."""
        shard = self._shards[low]
        size = len(shard)
        # `dict(shard)` gets the power of two of slots from 1.5 an entry on, of which 2/3 are used
        room = (1 << max(3, (size * 3 // 2).bit_length())) * 2 // 3 - size
        if room <= size // 8:
            room = max(5, size)  # it will double, and be full again after about as many
        else:
            shard = self._shards[low] = dict(shard)
        self._room[low] = room
        return shard
