"""A rank's cache as an engine keeps it, and an index that remembers everything the slow way."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.core import RankId
from orchestrator.routing import Cleared, KvEvent, Removed, Stored

BLOCK = 2
Content = tuple[int, ...]  # of a block and all before it


def block_hash(content: Content) -> int:
    """An engine's hash: nothing like our keys."""
    return random.Random(repr(content)).getrandbits(60)


@dataclass
class CachingRank:
    """Stores prompts, sometimes a block twice, and evicts the last blocks of prompts first."""

    chance: random.Random
    copies: Counter[Content] = field(default_factory=Counter)

    def act(self) -> KvEvent | None:
        """Something that a real cache might do; None if it was nothing."""
        match self.chance.choices(("store", "evict", "clear"), (6, 4, 0.2))[0]:
            case "store":
                return self._store(random_prompt(self.chance))
            case "evict":
                return self._evict()
            case _:
                self.copies.clear()
                return Cleared()

    def _store(self, prompt: Content) -> KvEvent | None:
        blocks = len(prompt) // BLOCK
        held = leading(self.copies, prompt)
        # usually only what is new; two that run side by side store the same
        first = held if self.chance.random() < 0.8 else self.chance.randint(0, held)
        if first == blocks:
            return None
        contents = [prompt[: (at + 1) * BLOCK] for at in range(first, blocks)]
        self.copies.update(contents)
        parent = block_hash(prompt[: first * BLOCK]) if first else None
        return Stored([block_hash(c) for c in contents], parent, list(prompt[first * BLOCK :]))

    def _evict(self) -> KvEvent | None:
        leaves = sorted(
            content
            for content, count in self.copies.items()
            if count > 1 or not any(other[:-BLOCK] == content for other in self.copies)
        )
        if not leaves:
            return None
        gone = self.chance.choice(leaves)
        drop(self.copies, gone)
        return Removed([block_hash(gone)])


@dataclass
class BruteIndex:
    """What each rank holds, as full contents."""

    copies: dict[RankId, Counter[Content]] = field(default_factory=dict)
    contents: dict[int, Content] = field(default_factory=dict)

    def on(self, rank_id: RankId, event: KvEvent) -> None:
        copies = self.copies.setdefault(rank_id, Counter())
        match event:
            case Stored():
                content: Content = ()
                if event.parent is not None:
                    known = self.contents.get(event.parent)
                    if known is None or not any(c[known] for c in self.copies.values()):
                        return
                    content = known
                for at, hashed in enumerate(event.hashes):
                    content += tuple(event.token_ids[at * BLOCK : (at + 1) * BLOCK])
                    self.contents[hashed] = content
                    copies[content] += 1
            case Removed(hashes):
                for hashed in hashes:
                    content = self.contents.get(hashed, ())
                    if copies[content]:
                        drop(copies, content)
            case Cleared():
                copies.clear()

    def hits(self, prompt: Content) -> dict[RankId, int]:
        found = {rank_id: leading(copies, prompt) for rank_id, copies in self.copies.items()}
        return {rank_id: blocks for rank_id, blocks in found.items() if blocks}


def leading(copies: Counter[Content], prompt: Content) -> int:
    """How many leading blocks of the prompt there are."""
    blocks = 0
    while (blocks + 1) * BLOCK <= len(prompt) and copies[prompt[: (blocks + 1) * BLOCK]]:
        blocks += 1
    return blocks


def drop(copies: Counter[Content], content: Content) -> None:
    copies[content] -= 1
    if not copies[content]:
        del copies[content]


def random_prompt(chance: random.Random) -> Content:
    """Of few tokens, so that prompts share beginnings."""
    return tuple(chance.randrange(2) for _ in range(BLOCK * chance.randint(1, 9)))


def streams(seed: int, ranks: Sequence[RankId], events: int) -> list[tuple[RankId, KvEvent]]:
    """What so many ranks publish, interleaved."""
    chance = random.Random(seed)
    caches = {rank_id: CachingRank(chance) for rank_id in ranks}
    found: list[tuple[RankId, KvEvent]] = []
    while len(found) < events:
        rank_id = chance.choice(ranks)
        if (event := caches[rank_id].act()) is not None:
            found.append((rank_id, event))
    return found
