"""One submission at a simulated rank, and the numbers of the engine that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from orchestrator.core import Finish, KvSource, Role
from orchestrator.routing import KvBatch

if TYPE_CHECKING:
    from orchestrator.sim.gang import Gang


class Scheduling(Enum):
    """What a step does when prompts wait beside running decodes."""

    MIXED = auto()  # a part of the prompts beside the decodes: vLLM, TensorRT-LLM
    PREFILL_FIRST = auto()  # the prompts alone, decodes stand still: SGLang


class Passes(Protocol):
    """How long a pass of the whole gang takes; see `perf.PassTables`."""

    def decode_s(self, batch: int, total: int, context: float) -> float:
        """One decode step."""
        ...

    def prefill_s(self, tokens: int, total: int, attention_s: float) -> float:
        """One pass over prompt tokens."""
        ...

    def attention_s(self, tokens: int, before: int, cached: int) -> float:
        """What attention adds for one part of a prompt."""
        ...


@dataclass(frozen=True, slots=True)
class GangModel:
    """One kind of gang: the numbers of its engine."""

    role: Role
    ranks: int  # DP ranks, which step together
    passes: Passes
    blocks: int  # KV blocks of a rank
    block_tokens: int = 64
    sequences_max: int = 256  # of a rank
    chunk_tokens: int = 8192  # prompt tokens of a rank in one pass
    stages: int = 1
    scheduling: Scheduling = Scheduling.MIXED
    receive_steps: int = 1  # decode steps between two looks at what has arrived
    align_steps: int = 0  # steps that prompts wait at most until every rank has one
    batch_steps: int = 0  # further steps, in which ranks may come to more of them
    guaranteed: bool = False  # a request begins when its whole answer has room; never preempted
    accepted: tuple[float, ...] = ()  # chances that a step gains a 2nd, 3rd ... token
    gpus: int = 8
    nodes: int = 1
    start_s: float = 120.0
    transfer_base_s: float = 0.0
    transfer_token_s: float = 0.0  # to move one token's KV out of a rank, or into it
    kv_hold_s: float = 480.0  # how long a prompt's KV waits for its decode rank


class Stage(Enum):
    """Where a job is."""

    WAITING = auto()  # without KV blocks
    PULLING = auto()
    PREFILL = auto()
    DECODE = auto()
    HELD = auto()  # its end has been told; its KV waits for a decode rank
    OVER = auto()


class Outlet(Protocol):
    """Whom a gang tells of a submission."""

    def on_first(self, job: "Job", now: float) -> None:
        """Its first token is there."""
        ...

    def on_end(self, job: "Job", finish: Finish, cause: str, now: float) -> None:
        """Its one end; `job.emitted` says with how many tokens."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One submission. How many tokens it will draw is known to the engine alone."""

    submission: str
    outlet: Outlet
    prompt_tokens: int  # with what was emitted before
    prompt_ids: Sequence[int]
    keys: Sequence[int]  # of its full blocks
    output_tokens: int
    source: KvSource = KvSource.LOCAL
    finish: Finish = Finish.STOP
    pull: "Pull | None" = None  # until it is done; only if the source is TRANSFER
    poison: bool = False
    # What the engine makes of it:
    stage: Stage = Stage.WAITING
    number: int = 0
    rank: int = 0
    compute_tokens: int = 0  # the prompt, and what was drawn before a preemption
    done_tokens: int = 0  # of those, cached ones included
    promised: int = 0  # blocks that its whole answer will take, if its rank guarantees them
    cached_tokens: int = 0
    held: Sequence[int] = ()  # keys of blocks that it refers to
    reserved: int = 0  # blocks
    told_first: bool = False
    emitted: int = 0
    from_step: int = 0
    per_step: float = 1.0  # tokens that a step gains


@dataclass(slots=True)
class Pull:
    """KV that lies at a prefill rank."""

    engine_id: str
    submission: str


class Around(Protocol):
    """What a gang needs of the world."""

    def pull(self, gang: "Gang", job: Job, now: float) -> None:
        """Fetches the KV of `job.pull`; calls `gang.pulled` once, later."""
        ...

    def publish(self, gang: "Gang", rank: int, batch: KvBatch, now: float) -> None:
        """Tells who listens."""
        ...

    def poisoned(self, gang: "Gang", job: Job, now: float) -> None:
        """The job has just killed the gang's engines."""
        ...

    def stepped(self, gang: "Gang", began_at: float, now: float, tokens: int) -> None:
        """The gang was busy for so long, of which running decodes gained so many tokens."""
        ...

    def gaps(self, gang: "Gang", gap_s: float, arrivals: int, tokens: int) -> None:
        """So many times new tokens came `gap_s` behind the ones before them, `tokens` in all."""
        ...
