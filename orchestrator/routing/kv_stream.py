"""Puts the batches of one rank's KV events in order: gaps, repetitions, restarts.

A publisher numbers its batches and keeps the last ones for replay. The host feeds what arrives and
does what the steps say. What comes out is a gapless sequence, or `Forget` where that cannot be. A
publisher that cannot replay is given up at its first loss: what it holds cannot be known any more.
"""

from dataclasses import dataclass

from orchestrator.routing.kv_events import KvBatch, KvEvent

_HELD_MAX = 10_000  # batches that wait for one before them; vLLM keeps as many for replay
_REORDERED_MAX = 64  # of a publisher without replay, how many may overtake one


@dataclass(frozen=True, slots=True)
class Apply:
    """These events are the next ones."""

    events: tuple[KvEvent, ...]


@dataclass(frozen=True, slots=True)
class AskReplay:
    """Ask the publisher for all it has from this batch on."""

    first: int


@dataclass(frozen=True, slots=True)
class Forget:
    """What is believed of the rank's blocks is worthless: batches are lost, or it started anew."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Batches are lost and cannot be asked for: the stream is of no use. Nothing follows."""


Step = Apply | AskReplay | Forget | GiveUp


@dataclass(slots=True)
class StreamCounts:
    """How the stream has gone so far, in batches but for `gaps` and `restarts`."""

    applied: int = 0
    repeated: int = 0  # had been applied, or waited already
    gaps: int = 0  # a batch was missing when a later one came
    lost: int = 0  # missing for good
    restarts: int = 0


class KvStream:
    """The order of one rank's batches. State machine without I/O."""

    def __init__(self, *, replays: bool) -> None:
        """`replays`: the publisher can be asked for batches again."""
        self.counts = StreamCounts()
        self._replays = replays
        self._asked = False
        self._next: int | None = None  # None: nothing has come yet
        self._latest = 0.0  # when the publisher made the last batch that was applied
        self._held: dict[int, KvBatch] = {}
        self._given_up = False

    def start(self) -> list[Step]:
        """The host has subscribed: what the publisher still has of the past is asked for."""
        if not self._replays:
            return []
        self._asked = True
        return [AskReplay(0)]

    def on_live(self, batch: KvBatch) -> list[Step]:
        """A batch as it was published."""
        if self._given_up:
            return []
        steps: list[Step] = []
        if self._next is not None and batch.sequence < self._next:
            if batch.made_at <= self._latest:
                self.counts.repeated += 1
                return []
            steps = self._restart()
        if self._next is None and not self._asked:
            self._next = batch.sequence
        self._hold(batch)
        steps += self._drain()
        if self._held and not self._asked:
            steps += self._gap()
        if len(self._held) > _HELD_MAX:
            steps += self.on_replay_end()
        return steps

    def on_replayed(self, batch: KvBatch) -> list[Step]:
        """A batch that was asked for; in the order of the replay."""
        if self._next is None:
            self._next = batch.sequence
        if batch.sequence >= self._next:
            self._held.setdefault(batch.sequence, batch)
        return self._drain()

    def on_replay_end(self) -> list[Step]:
        """The replay is complete, or has failed: what is missing now is lost."""
        self._asked = False
        if self._next is None:
            self._next = min(self._held, default=0)
        steps = self._drain()
        while self._held:
            steps += self._skip()
        return steps

    def _hold(self, batch: KvBatch) -> None:
        if batch.sequence in self._held:
            self.counts.repeated += 1
        else:
            self._held[batch.sequence] = batch

    def _drain(self) -> list[Step]:
        steps: list[Step] = []
        while self._next is not None and (batch := self._held.pop(self._next, None)) is not None:
            self._next += 1
            self._latest = batch.made_at
            self.counts.applied += 1
            steps.append(Apply(batch.events))
        return steps

    def _gap(self) -> list[Step]:
        """Batches wait for one that is not there."""
        assert self._next is not None
        if self._replays:
            self.counts.gaps += 1
            self._asked = True
            return [AskReplay(self._next)]
        if len(self._held) <= _REORDERED_MAX:
            return []
        self.counts.lost += min(self._held) - self._next
        self._held.clear()
        self._given_up = True
        return [GiveUp()]

    def _skip(self) -> list[Step]:
        """Goes on behind a gap."""
        assert self._next is not None
        first = min(self._held)
        self.counts.lost += first - self._next
        self._next = first
        return [Forget(), *self._drain()]

    def _restart(self) -> list[Step]:
        self.counts.restarts += 1
        self._held.clear()
        self._asked = False
        self._next = 0
        return [Forget()]
