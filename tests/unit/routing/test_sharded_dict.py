"""A dict of many small ones."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.routing.sharded_dict import SHARDS, ShardedDict


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.integers(1, 9)), max_size=400))
def test_is_a_dict(steps: list[tuple[bool, int, int]]) -> None:
    made, plain = ShardedDict(), dict[int, int]()
    for put, key, value in steps:
        if put:
            made.put(key, value)
            plain[key] = value
        else:
            made.pop(key)
            plain.pop(key, None)
        assert made.get(key) == plain.get(key, 0)
    assert dict(made.items()) == plain
    assert sorted(made) == sorted(plain)
    assert made.entries == len(plain)


def test_the_oldest_of_each_shard_come_first() -> None:
    made = ShardedDict()
    for key in range(10 * SHARDS):
        made.put(key, 1)
    assert sorted(made.oldest(2 * SHARDS)) == list(range(2 * SHARDS))


def test_stays_small_under_churn() -> None:
    for size in (5_000, 11_000, 20_000):
        made = ShardedDict()
        for key in range(12 * size):
            made.put(key, 1)
            if key >= size:
                made.pop(key - size)
        slots = sum(sys.getsizeof(shard) for shard in made._shards)
        assert made.entries == size
        assert slots / size < 80
