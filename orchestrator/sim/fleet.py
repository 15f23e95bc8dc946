"""A fleet of simulated engines behind one policy, in virtual time.

The policy sees what a gateway would: first tokens and ends when they happen, KV events late, and
some of them not at all until it asks again.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core import TokenIds
from orchestrator.routing import KvBatch, prompt_keys
from orchestrator.sim.agenda import Agenda
from orchestrator.sim.call import ids_of
from orchestrator.sim.engine import EngineModel, Job, Outlet, SimEngine
from orchestrator.workload import BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class Load:
    """How a trace is played: faster, smaller. Scales are factors of the trace's own numbers."""

    rate: float = 1.0
    input_scale: float = 0.25
    output_scale: float = 1 / 16


@dataclass(frozen=True, slots=True)
class EventPath:
    """How KV events reach the gateway; asking for a replay takes twice as long."""

    delay_s: float = 0.0
    loss: float = 0.0  # of batches, when they are published; answers to replays are not lost
    seed: int = 0


class Policy(Protocol):
    """Chooses an engine for each request."""

    def choose(self, job: Job, now: float) -> int:
        """The number of the engine."""
        ...

    def first_token(self, job: Job, now: float) -> None:
        """The job's first token has come."""
        ...

    def ended(self, job: Job, now: float) -> None:
        """The job's last token has come."""
        ...

    def batch(self, rank: int, batch: KvBatch, now: float) -> int | None:
        """A live batch of events; returns the first number to replay from, or None."""
        ...

    def replayed(self, rank: int, batches: Sequence[KvBatch], now: float) -> int | None:
        """The answer to that; may ask again."""
        ...


PolicyMaker = Callable[[Sequence[SimEngine]], Policy]


@dataclass(slots=True)
class Played:
    """What came out: the jobs in the order they arrived, and how long each engine prefilled."""

    jobs: list[Job] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    policy: Policy | None = None


def play(
    requests: Sequence[TraceRequest],
    load: Load,
    model: EngineModel,
    ranks: int,
    make: PolicyMaker,
    path: EventPath | None = None,
) -> Played:
    """Plays the trace to its end. The same arguments give the same result."""
    return _Fleet(load, model, ranks, make, path or EventPath()).play(requests)


class _Fleet:
    def __init__(
        self, load: Load, model: EngineModel, ranks: int, make: PolicyMaker, path: EventPath
    ) -> None:
        self._load = load
        self._model = model
        self._path = path
        self._chance = random.Random(f"kv events {path.seed}")
        self._agenda = Agenda()
        self._published: list[list[KvBatch]] = [[] for _ in range(ranks)]
        self._engines = [
            SimEngine(
                model,
                self._agenda,
                Outlet(self._on_first, self._on_end, self._publisher(rank)),
            )
            for rank in range(ranks)
        ]
        self._policy = make(self._engines)

    def play(self, requests: Sequence[TraceRequest]) -> Played:
        began_s = requests[0].at_s
        played = Played(policy=self._policy)
        for number, request in enumerate(requests):
            when = (request.at_s - began_s) / self._load.rate
            self._agenda.at(when, self._arrival(number, request, played.jobs))
        self._agenda.run()
        played.busy_s = [engine.busy_s for engine in self._engines]
        return played

    def _arrival(
        self, number: int, request: TraceRequest, jobs: list[Job]
    ) -> Callable[[float], None]:
        def arrive(now: float) -> None:
            ids = prompt_ids(request, self._load.input_scale)
            output_tokens = max(1, int(request.output_tokens * self._load.output_scale))
            keys = prompt_keys(ids, self._model.block_tokens)
            job = Job(number, ids, keys, output_tokens, now)
            jobs.append(job)
            job.rank = self._policy.choose(job, now)
            self._engines[job.rank].submit(job, now)

        return arrive

    def _on_first(self, job: Job, now: float) -> None:
        self._policy.first_token(job, now)

    def _on_end(self, job: Job, now: float) -> None:
        self._policy.ended(job, now)
        job.prompt_ids = range(len(job.prompt_ids))  # as long, and small
        job.keys = ()

    def _publisher(self, rank: int) -> Callable[[KvBatch, float], None]:
        def publish(batch: KvBatch, now: float) -> None:
            self._published[rank].append(batch)
            if self._chance.random() < self._path.loss:
                return
            self._agenda.at(now + self._path.delay_s, lambda when: self._deliver(rank, batch, when))

        return publish

    def _deliver(self, rank: int, batch: KvBatch, now: float) -> None:
        self._replay(rank, self._policy.batch(rank, batch, now), now)

    def _replay(self, rank: int, first: int | None, now: float) -> None:
        if first is None:
            return
        published = self._published[rank]

        def answer(when: float) -> None:
            self._replay(rank, self._policy.replayed(rank, published[first:], when), when)

        self._agenda.at(now + 2 * self._path.delay_s, answer)


def prompt_ids(request: TraceRequest, scale: float) -> TokenIds:
    """Token ids in which equal hash ids are equal runs, as long as the scaled prompt."""
    tokens = max(1, int(request.input_tokens * scale))
    run = max(2, round(BLOCK_TOKENS * scale))
    return ids_of(request.hash_ids, run)[:tokens]
