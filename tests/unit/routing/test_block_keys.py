"""Keys of blocks."""

from orchestrator.core import token_ids
from orchestrator.routing import chain_keys, prompt_keys, root_key

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
    assert prompt_keys((1, 2, 3, 4), 2) == [37924609060610440, 922039977269456552]
    assert all(0 <= key < 1 << 60 for key in prompt_keys(IDS, 16, "tenant"))


def test_a_very_long_prompt_has_the_keys_of_its_pieces() -> None:
    ids = token_ids(range(20_000))
    keys = prompt_keys(ids, 2)
    assert len(set(keys)) == 10_000
    at, parent = 0, root_key()
    for blocks in (1, 3, 4_096, 5_000, 900):
        piece = chain_keys(parent, ids[2 * at : 2 * (at + blocks)], 2)
        assert piece == keys[at : at + blocks]
        at, parent = at + blocks, piece[-1]
