"""What an engine and its node say of themselves: facts that no request shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Features:
    """Which features an engine has found itself with, once it had started; "" and 0: without."""

    kv_connector: str = ""
    kv_dtype: str = ""
    all2all: str = ""  # how experts exchange tokens; "" without expert parallelism
    draft_tokens: int = 0  # that MTP proposes at each step
    prefix_cache: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """One that the engine's process writes to."""

    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at an engine process and its node. None and absent counters: not known there.

    Counters grow over the engine's life and count everybody's requests.
    """

    unix_s: float  # the node's own clock
    healthy: bool  # what the engine says when it is asked by `/health`
    steps: int
    running: int
    waiting: int
    kv_usage: float
    shm_free_bytes: int | None = None
    disks: tuple[Disk, ...] = ()
    link_bytes_per_s: float | None = None  # of an all-reduce among the gang's nodes
    counters: Mapping[str, float] = field(default_factory=dict)


# Names of counters.
MOVED_TOKENS = "moved_tokens"  # of prompts, whose KV came from a peer
DRAFTS = "drafts"
ACCEPTED_TOKENS = "accepted_tokens"  # of those drafted
