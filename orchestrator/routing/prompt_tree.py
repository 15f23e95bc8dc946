"""The prompts that were sent to ranks and of which events have not spoken yet, in a radix tree.

A block's key stands for all that is before it, so two prompts share exactly the blocks before the
first key that differs, and that is found by bisection. So a prompt of thousands of blocks is put
in, moved and taken out in the time of some comparisons: a node is a run of blocks which all prompts
below it share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.core import RankId


@dataclass(slots=True)
class _Node:
    """Blocks `start` to `end` of the prompt with these keys, and of all others that go on here."""

    keys: Sequence[int]
    start: int
    end: int
    under_way: dict[RankId, int] = field(default_factory=dict)  # prompts that reach the end
    computed: dict[RankId, int] = field(default_factory=dict)
    after: dict[int, "_Node"] = field(default_factory=dict)  # by the first key of their run


class PromptTree:
    """How deep each rank will hold a prompt (`under_way`), or does (`computed`), by our own word.

    Whoever puts a prompt in takes it out again; taking out what is not there changes nothing.
    """

    def __init__(self) -> None:
        self._after: dict[int, _Node] = {}  # the nodes of first blocks

    def __len__(self) -> int:
        """Nodes."""
        return sum(1 for _ in self._nodes())

    def expect(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """The rank was sent a prompt with these keys."""
        for node in self._made(keys):
            node.under_way[rank_id] = node.under_way.get(rank_id, 0) + 1

    def confirm(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """It has computed it."""
        for node in self._made(keys):
            _less(node.under_way, rank_id)
            node.computed[rank_id] = node.computed.get(rank_id, 0) + 1

    def unexpect(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """It will not compute it, or the computed blocks are counted elsewhere."""
        self._take_out(rank_id, keys, computed=False)

    def forget(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """What it has computed is known from elsewhere, or gone."""
        self._take_out(rank_id, keys, computed=True)

    def drop(self, rank_id: RankId) -> None:
        """Forgets the rank."""
        for node in self._nodes():
            node.under_way.pop(rank_id, None)
            node.computed.pop(rank_id, None)

    def deepen(
        self, keys: Sequence[int], sure: dict[RankId, int], hoped: dict[RankId, int]
    ) -> None:
        """Raises the leading blocks that ranks hold of a prompt to what is known here."""
        for node, shared in self._path(keys):
            for rank_id in node.computed:
                if shared > sure.get(rank_id, 0):
                    sure[rank_id] = shared
                if shared > hoped.get(rank_id, 0):
                    hoped[rank_id] = shared
            for rank_id in node.under_way:
                if shared > hoped.get(rank_id, 0):
                    hoped[rank_id] = shared

    def _path(self, keys: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes that a prompt runs through, each with where it leaves it or the prompt ends."""
        after, at, blocks = self._after, 0, len(keys)
        while at < blocks and (node := after.get(keys[at])) is not None:
            at = _shared(node, keys)
            yield node, at
            if at < node.end:
                return
            after = node.after

    def _made(self, keys: Sequence[int]) -> Iterator[_Node]:
        """The nodes of exactly these blocks, made where there are none."""
        after, at, blocks = self._after, 0, len(keys)
        while at < blocks:
            node = after.get(keys[at])
            if node is None:
                node = after[keys[at]] = _Node(keys, at, blocks)
            elif (shared := _shared(node, keys)) < node.end:
                node = after[keys[at]] = _split(node, shared)
            yield node
            after, at = node.after, node.end

    def _take_out(self, rank_id: RankId, keys: Sequence[int], *, computed: bool) -> None:
        path: list[tuple[dict[int, _Node], _Node]] = []
        after = self._after
        for node, shared in self._path(keys):
            if shared < node.end:
                break  # never put in, or dropped
            path.append((after, node))
            after = node.after
        for after, node in reversed(path):
            _less(node.computed if computed else node.under_way, rank_id)
            first = node.keys[node.start]
            if not node.after and not node.under_way and not node.computed:
                del after[first]
            elif len(node.after) == 1:
                (only,) = node.after.values()
                if only.under_way == node.under_way and only.computed == node.computed:
                    only.start = node.start  # nothing ends between the two any more
                    after[first] = only

    def _nodes(self) -> Iterator[_Node]:
        left = list(self._after.values())
        while left:
            node = left.pop()
            left += node.after.values()
            yield node


def _shared(node: _Node, keys: Sequence[int]) -> int:
    """Up to where the prompt and the node's run are the same; its first block is."""
    own = node.keys
    low, high = node.start, min(node.end, len(keys)) - 1
    if own[high] == keys[high]:
        return high + 1
    while high - low > 1:
        middle = (low + high) // 2
        if own[middle] == keys[middle]:
            low = middle
        else:
            high = middle
    return high


def _split(node: _Node, at: int) -> _Node:
    """Two nodes of one: returns the first, which takes the node's place."""
    upper = _Node(node.keys, node.start, at, dict(node.under_way), dict(node.computed))
    node.start = at
    upper.after[node.keys[at]] = node
    return upper


def _less(counts: dict[RankId, int], rank_id: RankId) -> None:
    left = counts.get(rank_id, 0) - 1
    if left > 0:
        counts[rank_id] = left
    else:
        counts.pop(rank_id, None)
