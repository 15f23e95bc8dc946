"""Which pools have room for one gang more: those replace gangs without having fewer meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.spec import PoolSpec


@dataclass(frozen=True, slots=True)
class FreeNode:
    """GPUs of one node that nobody holds, and the node groups that it belongs to."""

    gpus: int
    groups: frozenset[str] = frozenset()


def surges(pools: Mapping[str, PoolSpec], free: Sequence[FreeNode]) -> frozenset[str]:
    """The pools that one more gang of each fits beside the others of them, all at the same time.

    Pools whose gangs are largest come first: they find room most rarely.
    """
    left = [node.gpus for node in free]
    found: set[str] = set()
    for name in sorted(pools, key=lambda name: (-pools[name].gang.gpus, name)):
        pool = pools[name]
        each = pool.gang.gpus_per_node
        fitting = [
            at
            for at, node in enumerate(free)
            if left[at] >= each and (pool.node_group is None or pool.node_group in node.groups)
        ]
        fitting.sort(key=lambda at: (left[at], at))  # the fullest first, for the large ones to come
        if len(fitting) >= pool.gang.nodes:
            found.add(name)
            for at in fitting[: pool.gang.nodes]:
                left[at] -= each
    return frozenset(found)
