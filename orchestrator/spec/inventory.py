"""The nodes that an operator has, as `r1-serve plan --inventory` reads them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One host. What it shares with others is named; without a name it is shared with nobody known.

    `leaf` is the switch that its NICs hang on, `nvlink_domain` the rack that NVLink joins, and
    `failure_domain` what fails as one: a rack, a power feed.
    """

    name: str
    gpu: str  # of the catalogue of hardware
    gpus: int
    leaf: str = ""
    nvlink_domain: str = ""
    failure_domain: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All hosts, and what joins them."""

    nodes: tuple[NodeSpec, ...]
    fabric: str | None = None  # None: what the command line says, or RDMA
