"""The KV blocks of one rank: which prompts' blocks are held, by how many requests, which may go.

A block is *used* while a request refers to it, *idle* when it is kept for its prefix only, or
*reserved* for something without a key: a prompt under way, a pull, generated tokens. Idle blocks
make room, the one that was used longest ago first; of one prompt its last blocks first.
"""

from collections import OrderedDict
from collections.abc import Sequence


class Blocks:
    """Counts of blocks, and the keys of those that have one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reserved = 0
        self.used: dict[int, int] = {}  # key -> requests
        self.idle: OrderedDict[int, None] = OrderedDict()
        self.gone: list[int] = []  # keys that left since somebody emptied this

    @property
    def free(self) -> int:
        """Blocks that can be had, idle ones included; below 0 if too much was reserved."""
        return self.capacity - len(self.used) - self.reserved

    def leading(self, keys: Sequence[int]) -> int:
        """How many leading ones of these blocks are here."""
        used, idle = self.used, self.idle
        blocks = 0
        for key in keys:
            if key not in used and key not in idle:
                break
            blocks += 1
        return blocks

    def hold(self, keys: Sequence[int]) -> None:
        """One more request refers to these, which are here or are now."""
        used, idle = self.used, self.idle
        for key in keys:
            count = used.get(key)
            if count:
                used[key] = count + 1
            else:
                used[key] = 1
                if key in idle:
                    del idle[key]

    def release(self, keys: Sequence[int]) -> None:
        """One request less refers to these."""
        used, idle = self.used, self.idle
        for key in reversed(keys):
            count = used[key] - 1
            if count:
                used[key] = count
            else:
                del used[key]
                idle[key] = None

    def fit(self) -> None:
        """Drops idle blocks until all fit."""
        idle, gone = self.idle, self.gone
        over = len(idle) - self.free
        while over > 0 and idle:
            gone.append(idle.popitem(last=False)[0])
            over -= 1

    def clear(self) -> None:
        """Nothing is here any more."""
        self.reserved = 0
        self.used.clear()
        self.idle.clear()
        self.gone.clear()
