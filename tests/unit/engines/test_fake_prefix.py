"""What the fake engine remembers of prompts."""

from orchestrator.core import token_ids
from orchestrator.engines.fake_prefix import PrefixMemory

PROMPT = token_ids(range(10))


def test_whole_blocks_are_remembered_but_never_the_whole_prompt() -> None:
    memory = PrefixMemory(100, block_size=4)
    assert memory.hit("", PROMPT) == 0
    memory.learn("", PROMPT)
    assert memory.hit("", PROMPT) == 8
    assert memory.hit("", PROMPT[:8]) == 4, "the last token gives the first one drawn"
    assert memory.hit("", PROMPT[:5] + token_ids([99] * 4)) == 4
    assert memory.hit("", token_ids([99]) + PROMPT) == 0


def test_salts_share_nothing() -> None:
    memory = PrefixMemory(100, block_size=4)
    memory.learn("a", PROMPT)
    assert memory.hit("a", PROMPT) == 8
    assert memory.hit("b", PROMPT) == memory.hit("", PROMPT) == 0


def test_it_forgets_rather_than_grow() -> None:
    memory = PrefixMemory(3, block_size=4)
    memory.learn("", PROMPT)
    memory.learn("", token_ids(range(100, 108)))
    assert memory.hit("", PROMPT) == 0
    assert memory.hit("", token_ids(range(100, 109))) == 8
    memory.learn("", token_ids(range(1000)))
    assert memory.hit("", token_ids(range(1000))) == 0, "longer than all it may remember"
    assert PrefixMemory(0, block_size=4).hit("", PROMPT) == 0
