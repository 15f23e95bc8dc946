"""What probes have gathered, as values. Durations are seconds, sizes tokens."""

from dataclasses import dataclass

from orchestrator.core import RankId, Role
from orchestrator.fleet.doctor.vitals import Features, Vitals


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one probe's request."""

    finish: str | None = None  # None: no end within the time that a probe has
    cause: str = ""
    ids: tuple[int, ...] = ()
    cached_tokens: int = 0
    first_s: float | None = None  # to the first token
    gap_s: float | None = None  # between two tokens, the median
    best_ids: tuple[int, ...] = ()  # the most probable first tokens, if the engine tells

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.finish is not None and self.finish not in {"stop", "length"}


@dataclass(frozen=True, slots=True)
class EventsSeen:
    """The rank's KV events at this gateway."""

    lost: int = 0  # batches, for good
    fault: str = ""  # why the stream was given up


@dataclass(frozen=True, slots=True)
class KvSeen:
    """The same prompt asked again, and once more under another salt."""

    again: Answer
    other_salt: Answer
    indexed_tokens: int | None = None  # the gateway's index says that the rank holds; None: no look
    routed_to: RankId | None = None  # by this gateway's router, for the same prompt
    routed_reason: str = ""


@dataclass(frozen=True, slots=True)
class RankSeen:
    """One rank. Each None is a probe that could not be made."""

    rank_id: RankId
    role: Role
    reached: bool  # by the probe's own channel
    cause: str = ""  # why not
    refused: str = ""  # why the gateway takes no part of it
    skipped: str = ""  # why it was left in peace
    engine: str = ""
    features: Features | None = None
    max_model_len: int = 0
    block_size: int = 0
    kv_blocks: int = 0
    hashing: str = ""  # algorithm and seed; "" without events
    keeps_budgets: bool = False  # says that it does
    before: Vitals | None = None
    after: Vitals | None = None
    rest_kv_usage: float | None = None  # with nothing running, behind the probes
    clock_off_s: float | None = None  # the node's clock less ours, at best
    clock_error_s: float = 0.0  # how wrong that may be
    answer: Answer | None = None
    paces_s: tuple[float, ...] = ()  # of more answers, where the first ones were slow
    kv: KvSeen | None = None
    events: EventsSeen | None = None  # None: it says that it publishes none
    budget: Answer | None = None
    budget_at: int | None = None  # index of the mark that closed the thought
    cancel_s: float | None = None  # from a cancel to its end
    cancel_tried: bool = False


@dataclass(frozen=True, slots=True)
class PairSeen:
    """One prompt prefilled by one rank and decoded by another."""

    prefill: RankId
    decode: RankId
    prompt_tokens: int
    produced: Answer
    decoded: Answer | None = None
    alone: Answer | None = None  # the same prompt computed by the decode rank itself
    moved_tokens: float | None = None  # that the decode engine counts as moved meanwhile


@dataclass(frozen=True, slots=True)
class PathSeen:
    """What this gateway would do with a long prompt now."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was configured. None: nothing in particular."""

    apart: bool = False  # prefill and decode are pools of their own
    connector: str | None = None
    version: str | None = None  # of the engine
    max_model_len: int | None = None
    all2all: str | None = None
    draft_tokens: int = 0
    prefix_cache: bool = False
    thinks: bool = False
    fabric_floor_bytes_per_s: float | None = None
    budget_tokens: int = 4
    answer_s: float = 10.0
    cancel_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was gathered of one model at one gateway."""

    model: str
    wanted: Wanted
    ranks: tuple[RankSeen, ...]
    pairs: tuple[PairSeen, ...] = ()
    path: PathSeen | None = None
