"""What the doctor says of one thing that it looked at."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.fleet.doctor.faults import SilentFault


class Probe(StrEnum):
    """What is looked at."""

    REACHED = "reached"
    ANSWERS = "answers"
    PACE = "pace"
    CANCEL = "cancel"
    PATH = "path"
    TRANSFER = "transfer"
    TRANSFERRED_TEXT = "transferred_text"
    BLOCKS_FREED = "blocks_freed"
    CONNECTOR = "connector"
    PREFIX_CACHE = "prefix_cache"
    PREFIX_ROUTING = "prefix_routing"
    ISOLATION = "isolation"
    KV_EVENTS = "kv_events"
    BLOCK_HASHES = "block_hashes"
    BLOCK_SIZE = "block_size"
    VERSIONS = "versions"
    KV_TYPE = "kv_type"
    KV_ROOM = "kv_room"
    CONTEXT = "context"
    EXPERTS = "experts"
    DRAFTS = "drafts"
    BUDGET = "budget"
    CLOCK = "clock"
    FABRIC = "fabric"
    SHM = "shm"
    DISK = "disk"


class State(StrEnum):
    """How it is."""

    OK = "ok"
    OFF = "off"  # not configured
    UNKNOWN = "unknown"  # not available: `seen` has the reason
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe of one subject: a rank, two that hand KV on, or the gateway itself."""

    probe: Probe
    subject: str
    state: State
    expected: str
    seen: str
    cure: str = ""  # of a fault
    fault: SilentFault | None = None  # its name, if it has one


_ORDER = (State.OFF, State.OK, State.UNKNOWN, State.FAULT)


def worst(findings: Iterable[Finding]) -> State:
    """The worst of them; OFF if there are none."""
    return max((finding.state for finding in findings), key=_ORDER.index, default=State.OFF)
