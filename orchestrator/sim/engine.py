"""A rank's engine in virtual time: a serial prefill, a batch of decodes, a paged prefix cache.

Time to first token = the prefills before it + `prefill_base_s` + `prefill_token_s` for each token
that is not cached. One decode step gives every running request a token. Blocks are kept in the
order of their last use, and enter the cache with the first token.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.routing import KvBatch, Removed, Stored
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.events import engine_hash, stored


class HitAt(StrEnum):
    """When an engine looks up what it has cached of a prompt."""

    ADMISSION = "admission"  # when the request gets a slot; what is under way is computed again
    PREFILL = "prefill"  # when its prefill begins, as vLLM does


@dataclass(frozen=True, slots=True)
class EngineModel:
    """The numbers of one engine."""

    blocks: int  # that the cache holds
    block_tokens: int = 64
    prefill_base_s: float = 0.002
    prefill_token_s: float = 40e-6
    step_s: float = 0.040
    step_request_s: float = 0.0  # added to a step by each running request
    stall: float = 0.0  # share of a prefill by which running decodes are held up
    slots: int = 64
    hit_at: HitAt = HitAt.PREFILL


@dataclass(slots=True, eq=False)
class Job:
    """One request; the engine fills the rest in."""

    number: int
    prompt_ids: Sequence[int]
    keys: Sequence[int]  # of its full blocks
    output_tokens: int
    arrived_at: float
    rank: int = -1
    cached_tokens: int = 0
    first_at: float = 0.0
    ended_at: float = 0.0


@dataclass(slots=True)
class Outlet:
    """Whom the engine tells."""

    on_first: Callable[[Job, float], None]
    on_end: Callable[[Job, float], None]
    on_batch: Callable[[KvBatch, float], None]


@dataclass(slots=True)
class SimEngine:
    """One engine."""

    model: EngineModel
    agenda: Agenda
    outlet: Outlet
    busy_s: float = 0.0  # spent in prefills
    free_at: float = 0.0  # when the prefills that have been priced are done
    sequence: int = 0
    _cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _waiting: deque[Job] = field(default_factory=deque)  # without a slot
    _queue: deque[Job] = field(default_factory=deque)  # slot, prefill not priced (HitAt.PREFILL)
    _held: int = 0  # slots
    _ending: list[tuple[int, int, Job]] = field(default_factory=list)  # heap by last step
    _steps: int = 0
    _step_at: float = 0.0  # when the last step ended
    _plans: int = 0  # to know a plan that was overtaken

    @property
    def running(self) -> int:
        """Requests that decode."""
        return len(self._ending)

    def submit(self, job: Job, now: float) -> None:
        """Takes a request."""
        if self._held < self.model.slots:
            self._admit(job, now)
        else:
            self._waiting.append(job)

    # --- what a perfect oracle may look at ---------------------------------------------------

    def hit_tokens(self, keys: Sequence[int]) -> int:
        """What the engine would find cached of a prompt that came now."""
        coming: set[int] = set()
        if self.model.hit_at is HitAt.PREFILL:
            for job in (*self._queue, *self._waiting):
                coming.update(job.keys)
        return self._leading(keys, coming)

    def prefill_s(self, tokens: int, hit_tokens: int) -> float:
        """The time of one prefill."""
        return self.model.prefill_base_s + self.model.prefill_token_s * (tokens - hit_tokens)

    def wait_s(self, now: float) -> float:
        """How long a request that came now would wait for its prefill."""
        queued_s = 0.0
        coming: set[int] = set()
        for at, job in enumerate(self._queue):  # the first is being computed: `free_at` has it
            if at:
                hit = min(self._leading(job.keys, coming), self._most(job))
                queued_s += self.prefill_s(len(job.prompt_ids), hit)
            coming.update(job.keys)
        return max(self.free_at - now, self._slot_at() - now, 0.0) + queued_s

    def _slot_at(self) -> float:
        """When a slot is free for one more; as far as that is known, which it is of decodes."""
        ahead = self._held + len(self._waiting) + 1 - self.model.slots
        if ahead <= 0 or not self._ending:
            return 0.0
        ends = sorted(last for last, _, _ in self._ending)
        left = ends[min(ahead, len(ends)) - 1] - self._steps
        return self._step_at + left * self._duration_s()

    def _leading(self, keys: Sequence[int], coming: set[int]) -> int:
        blocks = 0
        for key in keys:
            if key not in self._cache and key not in coming:
                break
            blocks += 1
        return blocks * self.model.block_tokens

    # --- prefill -----------------------------------------------------------------------------

    def _admit(self, job: Job, now: float) -> None:
        self._held += 1
        if self.model.hit_at is HitAt.ADMISSION:
            self._price(job, now)
            return
        self._queue.append(job)
        if len(self._queue) == 1:
            self._price(job, now)

    def _most(self, job: Job) -> int:
        """The most that can be a hit: the last token is computed always."""
        block = self.model.block_tokens
        return (len(job.prompt_ids) - 1) // block * block

    def _price(self, job: Job, now: float) -> None:
        block = self.model.block_tokens
        hit = 0
        for key in job.keys:
            if key not in self._cache:
                break
            self._cache.move_to_end(key)
            hit += block
        job.cached_tokens = min(hit, self._most(job))
        work_s = self.prefill_s(len(job.prompt_ids), job.cached_tokens)
        self.busy_s += work_s
        self.free_at = max(self.free_at, now) + work_s
        self._advance(now)
        self._step_at += self.model.stall * work_s
        self._plan(now)
        self.agenda.at(self.free_at, lambda when: self._first(job, when))

    def _first(self, job: Job, now: float) -> None:
        self._keep(job, now)
        job.first_at = now
        self.outlet.on_first(job, now)
        if self._queue:
            self._queue.popleft()
            if self._queue:
                self._price(self._queue[0], now)
        if job.output_tokens <= 1:
            self._end(job, now)
            return
        self._advance(now)
        if not self._ending:
            self._step_at = max(self._step_at, now)
        heapq.heappush(self._ending, (self._steps + job.output_tokens - 1, job.number, job))
        self._plan(now)

    def _keep(self, job: Job, now: float) -> None:
        """The prompt's blocks enter the cache; what no longer fits leaves it."""
        fresh: list[int] = []
        for at, key in enumerate(job.keys):
            if key in self._cache:
                self._cache.move_to_end(key)
            else:
                self._cache[key] = None
                fresh.append(at)
        events: list[Stored | Removed] = [
            *stored(fresh, job.keys, job.prompt_ids, self.model.block_tokens)
        ]
        removed: list[int] = []
        while len(self._cache) > self.model.blocks:
            removed.append(engine_hash(self._cache.popitem(last=False)[0]))
        if removed:
            events.append(Removed(removed))
        if events:
            self.outlet.on_batch(KvBatch(self.sequence, now, tuple(events)), now)
            self.sequence += 1

    # --- decode ------------------------------------------------------------------------------

    def _duration_s(self) -> float:
        return self.model.step_s + self.model.step_request_s * len(self._ending)

    def _advance(self, now: float) -> None:
        """Counts the steps that have ended by now."""
        if self._ending and now > self._step_at:
            done = int((now - self._step_at) / self._duration_s())
            done = min(done, self._ending[0][0] - self._steps - 1)  # the last one has its event
            if done > 0:
                self._steps += done
                self._step_at += done * self._duration_s()

    def _plan(self, now: float) -> None:
        """Asks to be called when the next request ends."""
        self._plans += 1
        if not self._ending:
            return
        plan = self._plans
        left = self._ending[0][0] - self._steps
        when = max(now, self._step_at + left * self._duration_s())
        self.agenda.at(when, lambda now: self._step(plan, now))

    def _step(self, plan: int, now: float) -> None:
        if plan != self._plans:
            return
        self._steps = self._ending[0][0]
        self._step_at = now
        while self._ending and self._ending[0][0] <= self._steps:
            _, _, job = heapq.heappop(self._ending)
            self._end(job, now)
        self._plan(now)

    def _end(self, job: Job, now: float) -> None:
        job.ended_at = now
        self._held -= 1
        self.outlet.on_end(job, now)
        while self._waiting and self._held < self.model.slots:
            self._admit(self._waiting.popleft(), now)
