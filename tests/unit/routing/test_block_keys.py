"""Keys of blocks."""

from orchestrator.routing import chain_keys, prompt_keys

IDS = tuple(range(1000, 1100))


def test_only_full_blocks_have_keys() -> None:
    assert len(prompt_keys(IDS, 16)) == 6
    assert prompt_keys(IDS[:15], 16) == []
    assert prompt_keys((), 16) == []


def test_a_key_stands_for_its_block_and_all_before_it() -> None:
    keys = prompt_keys(IDS, 16)
    assert prompt_keys(IDS[:64], 16) == keys[:4]
    assert chain_keys(keys[1], IDS[32:], 16) == keys[2:]


def test_one_other_token_changes_its_block_and_all_behind_it() -> None:
    other = (*IDS[:20], 7, *IDS[21:])
    keys, others = prompt_keys(IDS, 16), prompt_keys(other, 16)
    assert keys[0] == others[0]
    assert not set(keys[1:]) & set(others)


def test_equal_blocks_at_other_places_have_other_keys() -> None:
    assert len(set(prompt_keys((5,) * 160, 16))) == 10


def test_salts_share_no_key() -> None:
    assert not set(prompt_keys(IDS, 16)) & set(prompt_keys(IDS, 16, "tenant"))
    assert not set(prompt_keys(IDS, 16, "a")) & set(prompt_keys(IDS, 16, "b"))


def test_keys_are_the_same_in_every_process() -> None:
    """They depend on Python's hash of ints and tuples, which has no seed."""
    assert prompt_keys((1, 2, 3, 4), 2) == [1055613832978865141, 428406681632239714]
    assert all(0 <= key < 1 << 60 for key in prompt_keys(IDS, 16, "tenant"))
