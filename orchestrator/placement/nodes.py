"""Which nodes each gang runs on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.placement.bundles import Bundles, Impossible, bundles
from orchestrator.spec import PoolSpec


@dataclass(frozen=True, slots=True)
class Node:
    """A host with free GPUs, and what it shares with others of the same word."""

    name: str
    gpus: int
    leaf: str = ""  # the switch that its NICs hang on; all without one count as on one
    nvlink_domain: str = ""  # "": its NVLink goes no further
    failure_domain: str = ""  # what fails with it: a rack, a power feed

    @property
    def fails_with(self) -> str:
        """Its failure domain; without one its leaf, without that itself."""
        return self.failure_domain or self.leaf or self.name

    @property
    def nvlink(self) -> str:
        """Its NVLink domain; itself if that goes no further."""
        return self.nvlink_domain or self.name


@dataclass(frozen=True, slots=True)
class PlacedGang:
    """One gang and the names of its nodes, of each of which it takes `gpus` GPUs."""

    pool: int  # index of the pool
    replica: int
    nodes: tuple[str, ...]
    gpus: int


@dataclass(frozen=True, slots=True)
class _Asked:
    pool: int
    replica: int
    bundles: Bundles
    one_domain: bool  # its nodes must share NVLink


@dataclass(slots=True)
class _Fleet:
    """The nodes while gangs are dealt to them."""

    nodes: Sequence[Node]
    free: dict[str, int]
    domains: Counter[tuple[int, str]]  # gangs of a pool that a failure domain holds

    def fitting(self, gpus: int) -> list[Node]:
        """Nodes with so many free GPUs, fullest first."""
        fits = [node for node in self.nodes if self.free[node.name] >= gpus]
        return sorted(fits, key=lambda node: (self.free[node.name], node.name))


Choose = Callable[[_Fleet, _Asked], Sequence[Node]]


def place(pools: Sequence[PoolSpec], nodes: Sequence[Node]) -> tuple[PlacedGang, ...] | Impossible:
    """The nodes of every gang, by pool and replica; or why they cannot hold them all.

    Widest first. A gang stays in one NVLink domain if it fits, else on one leaf, and the gangs of a
    pool spread over failure domains; where that does not find room for all, they are packed on the
    fullest nodes instead. The order of `nodes` does not matter.
    """
    wanted: list[_Asked] = []
    for index, pool in enumerate(pools):
        asked = bundles(pool)
        if isinstance(asked, Impossible):
            return asked
        across = pool.gang.tensor_across_nodes and pool.gang.nodes > 1
        wanted += [_Asked(index, replica, asked, across) for replica in range(pool.replicas)]
    wanted.sort(key=lambda a: (-a.bundles.gpus, -a.bundles.nodes, a.pool, a.replica))
    ordered = sorted(nodes, key=lambda node: node.name)
    unplaced = None
    for choose in (_near_and_spread, _fullest):
        placed = _deal(wanted, ordered, choose)
        if not isinstance(placed, _Asked):
            return tuple(sorted(placed, key=lambda gang: (gang.pool, gang.replica)))
        unplaced = placed
    assert unplaced is not None
    return _no_room(unplaced, pools, nodes)


def _deal(
    wanted: Sequence[_Asked], nodes: Sequence[Node], choose: Choose
) -> list[PlacedGang] | _Asked:
    fleet = _Fleet(nodes, {node.name: node.gpus for node in nodes}, Counter())
    placed = []
    for asked in wanted:
        chosen = choose(fleet, asked)
        if len(chosen) < asked.bundles.nodes:
            return asked
        for node in chosen:
            fleet.free[node.name] -= asked.bundles.gpus
        for domain in {node.fails_with for node in chosen}:
            fleet.domains[asked.pool, domain] += 1
        names = tuple(node.name for node in chosen)
        placed.append(PlacedGang(asked.pool, asked.replica, names, asked.bundles.gpus))
    return placed


def _near_and_spread(fleet: _Fleet, asked: _Asked) -> Sequence[Node]:
    """Nodes that share as much as possible, where fewest gangs of the pool are."""
    fits = fleet.fitting(asked.bundles.gpus)
    fits.sort(key=lambda node: fleet.domains[asked.pool, node.fails_with])
    count = asked.bundles.nodes
    if count == 1:
        return fits[:1]
    for shared in (_by_nvlink, _by_leaf):
        rooms = [room for room in _grouped(fits, shared) if len(room) >= count]
        if rooms:
            # The one with fewest gangs of the pool; of these the one that is filled best.
            return min(rooms, key=lambda room: (_crowd(fleet, asked, room[:count]), len(room)))[
                :count
            ]
        if asked.one_domain:
            return ()
    largest_first = sorted(_grouped(fits, _by_leaf), key=lambda room: -len(room))
    return [node for room in largest_first for node in room][:count]


def _fullest(fleet: _Fleet, asked: _Asked) -> Sequence[Node]:
    fits = fleet.fitting(asked.bundles.gpus)
    if not asked.one_domain:
        return fits[: asked.bundles.nodes]
    rooms = [room for room in _grouped(fits, _by_nvlink) if len(room) >= asked.bundles.nodes]
    return min(rooms, key=len, default=[])[: asked.bundles.nodes]


def _crowd(fleet: _Fleet, asked: _Asked, room: Sequence[Node]) -> int:
    return max(fleet.domains[asked.pool, node.fails_with] for node in room)


def _by_nvlink(node: Node) -> str:
    return node.nvlink


def _by_leaf(node: Node) -> str:
    return node.leaf


def _grouped(nodes: Sequence[Node], key: Callable[[Node], str]) -> list[list[Node]]:
    """Groups in the order of their keys, each in the order given."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(key(node), []).append(node)
    return [groups[name] for name in sorted(groups)]


def _no_room(asked: _Asked, pools: Sequence[PoolSpec], nodes: Sequence[Node]) -> Impossible:
    gang = asked.bundles
    total = sum(pool.replicas * pool.gang.gpus for pool in pools)
    counts = sorted(Counter(node.gpus for node in nodes).items())
    have = ", ".join(f"{n} x {gpus} GPUs" for gpus, n in counts)
    where = " of one NVLink domain" if asked.one_domain else ""
    return Impossible(
        f"pools.{gang.role}: no room for a gang of {gang.nodes} nodes{where} x {gang.gpus} GPUs; "
        f"the fleet asks for {total} GPUs and the nodes have {have or 'none'}",
        "lower the replicas or the gang's parallelism, or add nodes",
    )
