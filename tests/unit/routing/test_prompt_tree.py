"""What our own decisions say of prompts, against a list of them."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import RankId, TokenIds
from orchestrator.routing import prompt_keys
from orchestrator.routing.prompt_tree import PromptTree

RANKS = [RankId(f"{name}/0") for name in "abc"]
PROMPTS = st.lists(st.integers(0, 1), min_size=0, max_size=7).map(
    lambda ids: prompt_keys(TokenIds("i", ids), 1)
)
STEPS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(RANKS), PROMPTS), max_size=40)


def shared(one: list[int], other: list[int]) -> int:
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    return at


def deepest(known: list[tuple[RankId, list[int]]], keys: list[int]) -> dict[RankId, int]:
    depths: dict[RankId, int] = {}
    for rank_id, of in known:
        depths[rank_id] = max(depths.get(rank_id, 0), shared(of, keys))
    return {rank_id: depth for rank_id, depth in depths.items() if depth}


@given(STEPS, st.lists(PROMPTS, min_size=1, max_size=5))
def test_agrees_with_a_list_of_what_was_sent(
    steps: list[tuple[int, RankId, list[int]]], asked: list[list[int]]
) -> None:
    tree = PromptTree()
    under_way: list[tuple[RankId, list[int]]] = []
    computed: list[tuple[RankId, list[int]]] = []
    for what, rank_id, keys in steps:
        sent = (rank_id, keys)
        if what == 0:
            tree.expect(rank_id, keys)
            under_way.append(sent)
        elif what == 1 and sent in under_way:
            tree.confirm(rank_id, keys)
            under_way.remove(sent)
            computed.append(sent)
        elif what == 2 and sent in under_way:
            tree.unexpect(rank_id, keys)
            under_way.remove(sent)
        elif what == 3 and sent in computed:
            tree.forget(rank_id, keys)
            computed.remove(sent)
        elif what == 4 and len(keys) == 7:
            tree.drop(rank_id)
            under_way = [other for other in under_way if other[0] != rank_id]
            computed = [other for other in computed if other[0] != rank_id]
    for prompt in asked:
        sure: dict[RankId, int] = {}
        hoped: dict[RankId, int] = {}
        tree.deepen(prompt, sure, hoped)
        assert sure == deepest(computed, prompt)
        assert hoped == deepest(under_way + computed, prompt)
    for rank_id, keys in under_way:
        tree.unexpect(rank_id, keys)
    for rank_id, keys in computed:
        tree.forget(rank_id, keys)
    assert len(tree) == 0 or any(step[0] == 4 for step in steps)


def test_prompts_that_come_and_go_leave_one_node_of_what_they_share() -> None:
    tree = PromptTree()
    lasting = prompt_keys(TokenIds("i", range(100)), 1)
    tree.expect(RANKS[0], lasting)
    for blocks in range(1, 100):
        tree.expect(RANKS[1], lasting[:blocks])
        assert len(tree) == 2
        tree.unexpect(RANKS[1], lasting[:blocks])
    assert len(tree) == 1


def test_what_is_taken_out_twice_or_was_never_there_changes_nothing() -> None:
    tree = PromptTree()
    keys = prompt_keys(TokenIds("i", range(6)), 1)
    tree.expect(RANKS[0], keys)
    tree.unexpect(RANKS[1], keys)
    tree.forget(RANKS[0], keys)
    tree.unexpect(RANKS[0], keys[:0])
    tree.unexpect(RANKS[0], prompt_keys(TokenIds("i", range(9)), 1)[6:])
    hoped: dict[RankId, int] = {}
    tree.deepen(keys, {}, hoped)
    assert hoped == {RANKS[0]: 6}
