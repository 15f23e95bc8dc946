"""What a gang does next: steps that are one event, or a pass over prompts."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.sim.agenda import Action, Agenda
from orchestrator.sim.job import Job, Stage

_ALMOST = 1e-9  # of a step


@dataclass(slots=True)
class Glide:
    """Steps that are one event: step i takes `first_s + i * more_s`."""

    began_at: float
    first_s: float
    more_s: float
    steps: int
    gained: float  # tokens a step, of all ranks
    told: int  # steps whose gap was told of already
    batch: int  # of all ranks

    def lasts_s(self, steps: int) -> float:
        """So many of its steps."""
        return steps * self.first_s + self.more_s * steps * (steps - 1) / 2

    def done(self, now: float) -> int:
        """Whole steps by now."""
        since = now - self.began_at
        if self.more_s <= 0:
            return int(since / self.first_s + _ALMOST)
        b = self.first_s - self.more_s / 2
        return int((math.sqrt(b * b + 2 * self.more_s * since) - b) / self.more_s + _ALMOST)


@dataclass(slots=True)
class Pass:
    """One pass over parts of prompts, with or without a decode step."""

    began_at: float
    parts: list[tuple[Job, int]]
    decodes: bool
    through_s: float  # from the end of the pass in the first stage to its end in the last
    gained: float
    batch: int  # of all ranks


@dataclass(slots=True)
class Seen:
    """What the ranks would do next, as the barrier sees it: the slowest of each kind."""

    parts: list[tuple[Job, int]] = field(default_factory=list)
    most: int = 0  # prompt tokens
    fresh: int = 0  # of all ranks
    attention_s: float = 0.0
    prompting: int = 0  # ranks with prompts
    decoding: int = 0  # ranks with running decodes
    batch: int = 0
    total: int = 0  # of all ranks
    context: float = 0.0
    growth: float = 0.0  # of the rank with that context
    gained: float = 0.0  # tokens a step, of all ranks
    room: int = 1 << 60  # steps until blocks run out somewhere


class Drafts:
    """Tokens that a step gains, with drafts accepted by chance: their mean and variance."""

    def __init__(self, accepted: tuple[float, ...]) -> None:
        mean, square, reached = 1.0, 1.0, 1.0
        for at, chance in enumerate(accepted, start=1):
            reached *= chance
            mean += reached
            square += reached * (2 * at + 1)
        self.mean = mean
        self._variance = square - mean * mean
        self._most = 1 + len(accepted)

    def spread(self, tokens: int) -> float:
        """Standard deviation of the steps in which a sequence gains so many tokens."""
        return math.sqrt(tokens * self._variance / self.mean**3)

    def steps(self, tokens: int, drawn: float) -> int:
        """Whole steps for that many tokens, near `drawn`, within what is possible."""
        return min(tokens, max(round(drawn), -(-tokens // self._most)))


class Plan:
    """The one event that a gang waits for; a new one takes the place of the one before it."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._number = 0

    def drop(self) -> None:
        """It waits for nothing."""
        self._number += 1

    def at(self, when: float, action: Action) -> None:
        """At an instant."""
        self._number += 1
        number = self._number

        def act(now: float) -> None:
            if number == self._number:
                action(now)

        self._agenda.at(when, act)

    def soon(self, action: Callable[[], None]) -> None:
        """Behind what is under way."""
        self._number += 1
        number = self._number

        def act() -> None:
            if number == self._number:
                action()

        self._agenda.soon(act)


class Marks:
    """Decoding jobs by the step at which they are to be looked at: a first token, or the end."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []  # step, then the job's number

    def add(self, job: Job, step: int) -> None:
        """To be looked at behind that step."""
        heapq.heappush(self._heap, (step, job.number, job))

    def next_step(self) -> int:
        """The step of the next one, which there must be."""
        heap = self._heap
        while heap[0][0] != due(heap[0][2]):
            heapq.heappop(heap)  # of a job that was preempted or aborted
        return heap[0][0]

    def pop(self, step: int) -> Job | None:
        """The next one of this step or before it."""
        heap = self._heap
        while heap and heap[0][0] <= step:
            at, _, job = heapq.heappop(heap)
            if at == due(job):
                return job
        return None

    def clear(self) -> None:
        """There are no jobs any more."""
        self._heap.clear()


def due(job: Job) -> int:
    """The step at which the job is to be looked at; -1 if never."""
    if job.stage is not Stage.DECODE:
        return -1
    if not job.told_first:
        return job.from_step + 1
    return job.from_step + round((job.output_tokens - job.emitted) / job.per_step)
