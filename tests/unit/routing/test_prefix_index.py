"""Which rank holds which blocks."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import RankId
from orchestrator.routing import Cleared, PrefixIndex, Removed, Stored, prompt_keys
from tests.unit.routing.kv_world import BLOCK, BruteIndex, block_hash, random_prompt, streams

A, B, C = RankId("a/0"), RankId("b/0"), RankId("c/0")
PROMPT = tuple(range(12))  # six blocks
KEYS = prompt_keys(PROMPT, BLOCK)


def index(*ranks: RankId, blocks_max: int = 10_000) -> PrefixIndex:
    made = PrefixIndex(BLOCK, blocks_max)
    for rank in ranks:
        made.join(rank)
    return made


def stored(prompt: tuple[int, ...], first: int = 0, salt: str = "") -> Stored:
    blocks = len(prompt) // BLOCK
    hashes = [block_hash(prompt[: (at + 1) * BLOCK]) for at in range(first, blocks)]
    parent = block_hash(prompt[: first * BLOCK]) if first else None
    return Stored(hashes, parent, list(prompt[first * BLOCK : blocks * BLOCK]), salt)


def removed(prompt: tuple[int, ...], block: int) -> Removed:
    return Removed([block_hash(prompt[: (block + 1) * BLOCK])])


def sweep(swept: PrefixIndex) -> None:
    while swept.sweep(1000):
        pass


def test_counts_the_leading_blocks_of_each_rank() -> None:
    made = index(A, B, C)
    made.on(A, stored(PROMPT))
    made.on(B, stored(PROMPT[:6]))
    assert made.hits(KEYS).sure == {A: 6, B: 3}
    assert made.hits(prompt_keys((*PROMPT[:4], 99, 98), BLOCK)).sure == {A: 2, B: 2}
    assert made.hits(prompt_keys((7, 7, 7, 7), BLOCK)).sure == {}
    assert made.hits([]).sure == {}


def test_a_run_continues_the_block_that_its_parent_names() -> None:
    made = index(A)
    made.on(A, stored(PROMPT[:6]))
    made.on(A, stored(PROMPT, first=3))
    assert made.hits(KEYS).sure == {A: 6}


def test_a_removed_block_ends_the_hit() -> None:
    made = index(A, B)
    made.on(A, stored(PROMPT))
    made.on(B, stored(PROMPT))
    made.on(A, removed(PROMPT, 5))
    made.on(A, removed(PROMPT, 4))
    assert made.hits(KEYS).sure == {A: 4, B: 6}


def test_of_a_block_stored_twice_one_copy_is_left() -> None:
    made = index(A)
    made.on(A, stored(PROMPT))
    made.on(A, stored(PROMPT))
    made.on(A, removed(PROMPT, 5))
    assert made.hits(KEYS).sure == {A: 6}
    made.on(A, removed(PROMPT, 5))
    assert made.hits(KEYS).sure == {A: 5}


def test_salts_are_apart() -> None:
    made = index(A)
    made.on(A, stored(PROMPT, salt="tenant"))
    assert made.hits(KEYS).sure == {}
    assert made.hits(prompt_keys(PROMPT, BLOCK, "tenant")).sure == {A: 6}


def test_what_makes_no_sense_is_counted_and_changes_nothing() -> None:
    made = index(A, B)
    made.on(B, stored(PROMPT))
    before = made.hits(KEYS)
    made.on(A, Removed([12345]))
    made.on(A, removed(PROMPT, 5))  # B holds it, A does not
    made.on(A, Stored([1, 2], 999, [0] * 2 * BLOCK))
    made.on(A, Stored([1, 2], None, [0] * 3))
    assert made.hits(KEYS) == before
    counts = made.counts
    assert (counts.strangers, counts.orphans, counts.malformed) == (2, 2, 1)


def test_a_gone_rank_is_not_hit_and_its_slot_is_clean_when_another_takes_it() -> None:
    made = index(A, B)
    made.on(A, stored(PROMPT))
    made.expect(A, KEYS)
    made.expect(A, prompt_keys((9, 9, 8, 8), BLOCK))
    made.on(B, stored(PROMPT[:4]))
    made.leave(A)
    assert made.hits(KEYS).sure == {B: 2}
    sweep(made)
    made.join(C)
    made.on(C, stored((5, 5)))
    assert made.hits(KEYS).hoped == {B: 2}
    assert made.hits(prompt_keys((9, 9, 8, 8), BLOCK)).hoped == {}
    assert len(made) == 3


def test_a_cleared_rank_holds_nothing() -> None:
    made = index(A)
    made.on(A, stored(PROMPT))
    made.on(A, Cleared())
    assert made.hits(KEYS).sure == {}
    made.on(A, stored(PROMPT[:4]))
    assert made.hits(KEYS).sure == {A: 2}


def test_what_is_under_way_is_hoped_for_then_sure_then_forgotten() -> None:
    made = index(A)
    made.expect(A, KEYS)
    assert (made.hits(KEYS).sure, made.hits(KEYS).hoped) == ({}, {A: 6})
    made.confirm(A, KEYS)
    assert (made.hits(KEYS).sure, made.hits(KEYS).hoped) == ({A: 6}, {A: 6})
    made.on(A, stored(PROMPT[:4]))
    made.forget(A, KEYS)
    assert made.hits(KEYS).hoped == {A: 2}, "events have confirmed no more"
    assert len(made) == 2


def test_without_events_our_own_decisions_count_up_to_what_the_rank_can_hold() -> None:
    made = PrefixIndex(BLOCK, 1000)
    made.join(A, 6)
    other = prompt_keys(tuple(range(100, 106)), BLOCK)
    made.confirm(A, KEYS[:4])
    made.confirm(A, other)
    assert made.hits(other).sure == {A: 3}
    assert made.hits(KEYS).sure == {}, "its first block was used longest ago"
    made.leave(A)
    assert len(made) == 0


def test_when_events_end_our_own_decisions_go_on_from_what_they_said() -> None:
    made = index(A, B)
    made.on(A, stored(PROMPT))
    made.on(A, stored(PROMPT))
    made.on(B, stored(PROMPT[:4]))
    made.without_events(A, 100)
    assert made.hits(KEYS).sure == {A: 6, B: 2}
    other = prompt_keys(tuple(range(100, 306)), BLOCK)
    made.confirm(A, other)
    assert made.hits(other).sure == {}, "103 blocks: more than the rank holds, the first are gone"
    assert made.hits(KEYS).sure == {B: 2}
    made.on(B, removed(PROMPT, 1))
    made.on(B, removed(PROMPT, 0))
    assert made._keys.entries == 0
    assert made.counts.strangers == 0


def test_of_what_events_said_no_more_is_believed_than_the_rank_can_hold() -> None:
    made = index(A)
    made.on(A, stored(PROMPT))
    made.without_events(A, 2)
    assert len(made) == 2


def test_the_index_is_bounded_and_says_what_it_dropped() -> None:
    made = index(A, blocks_max=640)
    for number in range(1000):
        made.on(A, stored((number, 1, number, 2)))
    assert len(made) <= 640
    assert made.counts.evicted >= 2000 - 640
    last = prompt_keys((999, 1, 999, 2), BLOCK)
    assert made.hits(last).sure == {A: 2}
    for number in range(1000):
        made.on(A, removed((number, 1, number, 2), 1))
        made.on(A, removed((number, 1, number, 2), 0))
    assert len(made) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_agrees_with_a_brute_force_index_on_any_stream(seed: int) -> None:
    made, brute = index(A, B, C), BruteIndex()
    chance = random.Random(seed + 1)
    for number, (rank_id, event) in enumerate(streams(seed, (A, B, C), 120)):
        made.on(rank_id, event)
        brute.on(rank_id, event)
        sweep(made)
        if number % 5 == 0:
            prompt = random_prompt(chance)
            assert made.hits(prompt_keys(prompt, BLOCK)).sure == brute.hits(prompt)
    held = {content for copies in brute.copies.values() for content in copies}
    assert len(made) == len(held)
    assert made.counts.strangers == made.counts.orphans == 0


@pytest.mark.parametrize("seed", range(5))
def test_memory_does_not_depend_on_what_has_gone(seed: int) -> None:
    made = index(A, B, C)
    for rank_id, event in streams(seed, (A, B, C), 400):
        made.on(rank_id, event)
    for rank_id in (A, B, C):
        made.leave(rank_id)
    sweep(made)
    assert len(made) == 0
    assert made._keys.entries == 0
    assert not made._copies


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_cache_with_holes_is_never_underrated(seed: int) -> None:
    """Engines evict a prompt's last blocks first; of one that does not, hits may be too high."""
    made, brute = index(A), BruteIndex()
    chance = random.Random(seed)
    prompts = [random_prompt(chance) for _ in range(5)]
    for prompt in prompts:
        for taker in (made.on, brute.on):
            taker(A, stored(prompt))
    for prompt in prompts:
        gone = removed(prompt, chance.randrange(len(prompt) // BLOCK))
        for taker in (made.on, brute.on):
            taker(A, gone)
    for prompt in prompts:
        hits = made.hits(prompt_keys(prompt, BLOCK)).sure.get(A, 0)
        assert brute.hits(prompt).get(A, 0) <= hits <= len(prompt) // BLOCK
