"""Where a gang is in its life, and whether an operator may end it now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a gang is in its life. One that is gone has no status any more."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # takes nothing new


@dataclass(frozen=True, slots=True)
class Gang:
    """One gang as it says of itself. `nodes` are the fleet's ids of them; `progress` is what each
    of its processes is doing.
    """

    gang_id: str
    pool: str
    phase: Phase
    nodes: tuple[str, ...]
    requests: int = 0  # that its engines have
    progress: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drain:
    """What is to be drained: gangs, in the order of their ids; those of a node if it is named."""

    gang_ids: tuple[str, ...]
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing is drained, and what to do, a sentence each."""

    cause: str
    cure: str


def choose_drain(gangs: Sequence[Gang], target: str, *, forced: bool = False) -> Drain | Refused:
    """What draining `target`, a gang or a node, comes to.

    Refused if there is no such thing, or if a pool would have no ready gang left, unless forced.
    """
    chosen = [gang for gang in gangs if target in (gang.gang_id, *gang.nodes)]
    if not chosen:
        names = ", ".join(sorted(gang.gang_id for gang in gangs)) or "none"
        return Refused(
            f"{target} is neither a gang nor a node that a gang is on",
            f"name one of the gangs ({names}) or of their nodes",
        )
    left = Counter(gang.pool for gang in gangs if gang.phase is Phase.READY and gang not in chosen)
    for gang in chosen:
        if gang.phase is Phase.READY and not left[gang.pool] and not forced:
            return Refused(
                f"draining {target} would leave the pool {gang.pool} without a ready gang",
                "wait until another one is ready, add a replica, or give --force",
            )
    node_id = None if chosen[0].gang_id == target else target
    return Drain(tuple(sorted(gang.gang_id for gang in chosen)), node_id)
