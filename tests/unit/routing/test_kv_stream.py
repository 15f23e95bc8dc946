"""The order of a rank's batches."""

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import RankId
from orchestrator.routing import (
    Apply,
    AskReplay,
    Forget,
    GiveUp,
    KvBatch,
    KvEvent,
    KvStream,
    PrefixIndex,
    Removed,
    Step,
    prompt_keys,
)
from tests.unit.routing.kv_world import BLOCK, BruteIndex, random_prompt, streams

A, B = RankId("a/0"), RankId("b/0")


def batch(sequence: int, made_at: float | None = None) -> KvBatch:
    events = (Removed([sequence]),)
    return KvBatch(sequence, float(sequence) if made_at is None else made_at, events)


def applied(steps: Sequence[Step]) -> list[int]:
    return [
        event.hashes[0]
        for step in steps
        if isinstance(step, Apply)
        for event in step.events
        if isinstance(event, Removed)
    ]


def started(replays: bool = True) -> KvStream:
    stream = KvStream(replays=replays)
    stream.start()
    stream.on_replay_end()
    return stream


def test_asks_for_the_past_before_it_applies_the_present() -> None:
    stream = KvStream(replays=True)
    assert stream.start() == [AskReplay(0)]
    assert stream.on_live(batch(2)) == []
    assert applied(stream.on_replayed(batch(0))) == [0]
    assert applied(stream.on_replayed(batch(1))) == [1, 2]
    assert stream.on_replay_end() == []


def test_a_publisher_that_has_run_for_long_is_followed_from_what_it_still_has() -> None:
    stream = KvStream(replays=True)
    stream.start()
    assert applied(stream.on_replayed(batch(70))) == [70]
    assert stream.on_replay_end() == []
    assert applied(stream.on_live(batch(71))) == [71]


def test_a_gap_is_asked_for_once_and_nothing_overtakes_it() -> None:
    stream = started()
    assert applied(stream.on_live(batch(0))) == [0]
    assert stream.on_live(batch(2)) == [AskReplay(1)]
    assert stream.on_live(batch(3)) == []
    assert applied(stream.on_replayed(batch(1))) == [1, 2, 3]
    assert stream.on_replay_end() == []
    assert (stream.counts.gaps, stream.counts.lost) == (1, 0)


def test_what_the_replay_does_not_have_is_lost_and_all_is_forgotten() -> None:
    stream = started()
    stream.on_live(batch(0))
    stream.on_live(batch(5))
    steps = stream.on_replay_end()
    assert steps[0] == Forget()
    assert applied(steps) == [5]
    assert stream.counts.lost == 4


def test_a_late_batch_fills_its_gap_without_a_replay() -> None:
    stream = started(replays=False)
    assert applied(stream.on_live(batch(0))) == [0]
    assert stream.on_live(batch(2)) == []
    assert applied(stream.on_live(batch(1))) == [1, 2]


def test_without_replay_a_loss_is_the_end_of_the_stream() -> None:
    stream = started(replays=False)
    stream.on_live(batch(0))
    steps = [step for number in range(2, 80) for step in stream.on_live(batch(number))]
    assert steps == [GiveUp()]
    assert stream.counts.lost == 1


def test_a_repeated_batch_is_counted_and_not_applied() -> None:
    stream = started()
    stream.on_live(batch(0))
    assert stream.on_live(batch(0)) == []
    assert stream.counts.repeated == 1


def test_an_engine_that_started_anew_is_known_by_its_clock() -> None:
    stream = started()
    for number in range(5):
        stream.on_live(batch(number))
    steps = stream.on_live(batch(0, made_at=100.0))
    assert steps[0] == Forget()
    assert applied(steps) == [0]
    assert stream.counts.restarts == 1


def test_a_replay_that_never_ends_does_not_grow_without_bound() -> None:
    stream = KvStream(replays=True)
    stream.start()
    steps = [step for number in range(1, 10_050) for step in stream.on_live(batch(number))]
    assert len(stream._held) <= 10_001
    assert applied(steps)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_whatever_is_lost_repeated_or_overtaken_the_index_stays_true(
    seed: int, replays: bool
) -> None:
    """With replay the index ends as the engine is; without, as what was applied says."""
    chance = random.Random(seed)
    index = PrefixIndex(BLOCK, 10_000)
    engine, told = BruteIndex(), BruteIndex()
    links: dict[RankId, _Link] = {}
    for rank_id in (A, B):
        index.join(rank_id)
        links[rank_id] = _Link(rank_id, index, told, replays, chance)
    for rank_id, event in streams(seed, (A, B), 150):
        engine.on(rank_id, event)
        links[rank_id].publish(event)
    for link in links.values():
        link.settle()
    for _ in range(20):
        prompt = random_prompt(chance)
        hits = index.hits(prompt_keys(prompt, BLOCK)).sure
        assert hits == told.hits(prompt)
        if replays:
            assert hits == engine.hits(prompt)


class _Link:
    """A bad network between one publisher and the index."""

    def __init__(
        self,
        rank_id: RankId,
        index: PrefixIndex,
        told: BruteIndex,
        replays: bool,
        chance: random.Random,
    ) -> None:
        self.rank_id, self.index, self.told, self.chance = rank_id, index, told, chance
        self.stream = KvStream(replays=replays)
        self.published: list[KvBatch] = []
        self.on_its_way: list[KvBatch] = []
        self.do(self.stream.start())

    def publish(self, event: KvEvent) -> None:
        number = len(self.published)
        made = KvBatch(number, float(number), (event,))
        self.published.append(made)
        for _ in range(self.chance.choice((0, 1, 1, 1, 1, 1, 2))):
            self.on_its_way.append(made)
        if len(self.on_its_way) > 1 and self.chance.random() < 0.2:
            self.on_its_way[-1], self.on_its_way[-2] = self.on_its_way[-2], self.on_its_way[-1]
        if self.chance.random() < 0.7:
            self.deliver()

    def deliver(self) -> None:
        while self.on_its_way:
            self.do(self.stream.on_live(self.on_its_way.pop(0)))

    def settle(self) -> None:
        """One more batch arrives for sure, so that every gap shows."""
        self.publish(Removed([1]))
        self.deliver()
        self.do(self.stream.on_live(self.published[-1]))

    def do(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Apply(events):
                    for event in events:
                        self.index.on(self.rank_id, event)
                        self.told.on(self.rank_id, event)
                case Forget() | GiveUp():
                    self.index.join(self.rank_id)
                    self.told.copies.pop(self.rank_id, None)
                case AskReplay(first):
                    for old in self.published[first:]:
                        self.do(self.stream.on_replayed(old))
                    self.do(self.stream.on_replay_end())
            while self.index.sweep(1000):
                pass
