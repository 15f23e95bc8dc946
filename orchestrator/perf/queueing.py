"""How long one waits for a server: an M/D/c queue, by Sakasegawa's formula.

Elementwise; `busy` is the share of all servers' time that the work takes, and below 1.
"""

from typing import TypeVar

from orchestrator.perf.layout import Array

Number = TypeVar("Number", float, Array)


def delayed(busy: Number, servers: Number) -> Number:
    """The chance that one must wait at all."""
    chance: Number = busy ** ((2 * (servers + 1)) ** 0.5 - 1)
    return chance


def mean_wait(busy: Number, servers: Number) -> Number:
    """The mean wait of all, those who need not wait included, in times of service."""
    return delayed(busy, servers) / (2 * servers * (1 - busy))
