"""Workloads as numbers and by name."""

import pytest

from orchestrator.core import SpecError
from orchestrator.workload import (
    DAY6_CACHED_TOKENS,
    DAY6_INPUT_TOKENS,
    DAY6_OUTPUT_TOKENS,
    PROFILES,
    changed,
    from_numbers,
    read_numbers,
    split_numbers,
)


def test_numbers_make_a_workload() -> None:
    name, pairs = split_numbers("input=4000,output=1e3, rate=20,prefix_hit=0.5")
    assert name == ""
    workload = from_numbers(read_numbers(pairs, "w"), "w")
    assert workload.input_tokens.mean == 4_000
    assert workload.decode_context_tokens == 4_500
    assert workload.prefix_hit == 0.5
    assert workload.arrivals is not None
    assert workload.arrivals.requests_per_s == 20


def test_numbers_after_a_name_change_rate_and_prefix_hit_and_nothing_else() -> None:
    name, pairs = split_numbers("chat,rate=3,prefix_hit=0")
    workload = changed(PROFILES[name], read_numbers(pairs, "w"), "w")
    assert workload.prefix_hit == 0
    assert workload.arrivals is not None
    assert workload.arrivals.requests_per_s == 3
    assert workload.input_tokens == PROFILES["chat"].input_tokens
    with pytest.raises(SpecError, match="are its own"):
        changed(PROFILES["chat"], read_numbers({"input": 3}, "w"), "w")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"input": "many"}, "input is 'many'"),
        ({"input": True}, "input is True"),
        ({"input": None}, "input is None"),
        ({"input": 0}, "input=0 is not positive"),
        ({"rate": -1}, "rate=-1 is not positive"),
        ({"rate": "nan"}, "rate=nan"),
        ({"output": "inf"}, "output=inf"),
        ({"prefix_hit": 1}, "leaves nothing to prefill"),
    ],
)
def test_a_bad_number_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_numbers(given, "w")
    assert said in refused.value.cause
    assert refused.value.cure


def test_a_missing_length_is_named() -> None:
    with pytest.raises(SpecError, match="no output"):
        from_numbers(read_numbers({"input": 4}, "w"), "w")


def test_a_word_among_the_numbers_is_refused() -> None:
    with pytest.raises(SpecError, match="'fast' is no key=value"):
        split_numbers("chat,fast")


def test_every_profile_says_where_it_is_from() -> None:
    for name, workload in PROFILES.items():
        assert workload.name == name
        assert workload.source
        assert 0 <= workload.prefix_hit < 1


def test_chat_has_the_ratios_that_deepseek_published() -> None:
    chat = PROFILES["chat"]
    ratio = chat.input_tokens.mean / chat.output_tokens.mean
    assert ratio == pytest.approx(DAY6_INPUT_TOKENS / DAY6_OUTPUT_TOKENS)
    assert chat.prefix_hit == pytest.approx(DAY6_CACHED_TOKENS / DAY6_INPUT_TOKENS)
    assert chat.decode_context_tokens == pytest.approx(4_989)
