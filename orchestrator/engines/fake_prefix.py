"""What the fake engine remembers of the prompts it has computed: full blocks, apart by salt."""

from typing import NamedTuple

from orchestrator.core import TokenIds

_Node = int


class Learnt(NamedTuple):
    """What is new of a prompt: its full blocks from the `first` on."""

    first: int
    cleared: bool = False  # all others were forgotten before


class PrefixMemory:
    """Full blocks of earlier prompts, as a tree whose roots are salts; forgets all when full."""

    def __init__(self, blocks_max: int, block_size: int) -> None:
        """`blocks_max` 0 remembers nothing."""
        self._blocks_max = blocks_max
        self._block_size = block_size
        self._made = 0
        self._roots: dict[str, _Node] = {}
        self._children: dict[tuple[_Node, bytes], _Node] = {}

    def hit(self, salt: str, prompt_ids: TokenIds) -> int:
        """The tokens at the prompt's beginning that were computed before under the same salt.

        Whole blocks, and never the whole prompt: its last token gives the first one drawn.
        """
        node = self._roots.get(salt)
        blocks = 0
        while node is not None and (blocks + 1) * self._block_size < len(prompt_ids):
            node = self._children.get((node, self._block(prompt_ids, blocks)))
            blocks += node is not None
        return blocks * self._block_size

    def learn(self, salt: str, prompt_ids: TokenIds) -> Learnt:
        """Remembers the full blocks of a prompt that is computed now."""
        blocks = len(prompt_ids) // self._block_size
        if blocks > self._blocks_max:
            return Learnt(blocks)
        cleared = len(self._children) + blocks > self._blocks_max
        if cleared:
            self._roots.clear()
            self._children.clear()
        first = blocks  # the first one that is new
        node = self._roots.get(salt)
        if node is None:
            node = self._roots[salt] = self._new()
        for number in range(blocks):
            key = (node, self._block(prompt_ids, number))
            child = self._children.get(key)
            if child is None:
                child = self._children[key] = self._new()
                first = min(first, number)
            node = child
        return Learnt(first, cleared)

    def _block(self, prompt_ids: TokenIds, number: int) -> bytes:
        ids = prompt_ids[number * self._block_size : (number + 1) * self._block_size]
        return bytes(ids)

    def _new(self) -> _Node:
        self._made += 1
        return self._made
