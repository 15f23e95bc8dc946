"""Money, and what records of usage add up to."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import (
    PICO,
    Began,
    Charge,
    Ended,
    Fold,
    Opened,
    Progress,
    Record,
    Usage,
    UsageKey,
    cost_pico,
    money_text,
    to_pico,
)
from orchestrator.core import TokenCounts
from orchestrator.spec import PricesSpec

R1 = PricesSpec(Decimal("0.55"), Decimal("0.14"), Decimal("2.19"), Decimal("2.19"))
counts = st.builds(TokenCounts, *[st.integers(0, 10**6)] * 4)


def test_a_million_tokens_of_each_class_cost_their_price_to_the_last_place() -> None:
    million = TokenCounts(10**6, 10**6, 10**6, 10**6)
    assert cost_pico(R1, million) == to_pico(Decimal("5.07"))
    assert cost_pico(R1, TokenCounts(cached_input=1)) == 14 * PICO // 10**8
    assert cost_pico(None, million) == 0


def test_a_balance_shows_no_more_than_there_is() -> None:
    assert [money_text(pico) for pico in (0, PICO, 1_999 * PICO // 1_000, 1)] == [
        "0.00",
        "1.00",
        "1.99",
        "0.00",
    ]


@given(counts, counts)
def test_costs_add_up_exactly_and_never_shrink(one: TokenCounts, two: TokenCounts) -> None:
    assert cost_pico(R1, one) + cost_pico(R1, two) == cost_pico(R1, one + two)
    assert cost_pico(R1, one + two) >= cost_pico(R1, one)
    assert one + two - two == one


def ended(name: str, tokens: TokenCounts, at_s: int = 0) -> Ended:
    return Ended(name, "ada", "R1", at_s, "stop", tokens, cost_pico(R1, tokens))


def test_a_request_counts_with_what_was_last_said_of_it_until_it_ends() -> None:
    fold = Fold(by_day=True)
    key = UsageKey(0, "ada", "R1")
    some, more = TokenCounts(10, 0, 5, 0), TokenCounts(8, 2, 7, 9)
    fold.on(Began("life", 1, "USD"))
    fold.on(Opened("a", "ada", "R1", 5))
    assert fold.rows() == {key: Usage(1, 1)}
    fold.on(Progress(6, (Charge("a", some, 3),)))
    assert fold.rows() == {key: Usage(1, 1, some, 3)}
    fold.on(ended("a", more))
    assert fold.rows() == {key: Usage(1, 0, more, cost_pico(R1, more))}
    assert (fold.open, fold.faults) == ((), 0)


def test_a_second_end_counts_for_nothing_and_is_noticed() -> None:
    fold = Fold(by_day=False)
    for record in (
        Opened("a", "ada", "R1", 0),
        ended("a", TokenCounts(1)),
        ended("a", TokenCounts(1)),
    ):
        fold.on(record)
    assert fold.rows()[UsageKey(0, "ada", "")].requests == 1
    assert fold.faults == 1


def test_a_new_segment_goes_on_with_what_was_open() -> None:
    first, second = Fold(by_day=True), Fold(by_day=True)
    before: list[Record] = [
        Began("life", 1, "USD"),
        Opened("a", "ada", "R1", 0),
        Opened("b", "bob", "R1", 0),
        Progress(1, (Charge("b", TokenCounts(3), 2),)),
        ended("a", TokenCounts(1)),
    ]
    for record in before:
        first.on(record)
    carried: Record = Began("life", 2, "USD", first.open)
    after: list[Record] = [Ended("b", "bob", "R1", 90_000, "stop", TokenCounts(3, 0, 1, 1), 9)]
    for record in [carried, *after]:
        first.on(record)
    resumed = Fold(by_day=True, rows=None)
    for record in before:
        resumed.on(record)
    second = Fold(by_day=True, rows=resumed.ended)
    for record in [carried, *after]:
        second.on(record)
    assert first.rows() == second.rows()
    assert first.rows()[UsageKey(1, "bob", "R1")] == Usage(1, 0, TokenCounts(3, 0, 1, 1), 9)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), counts), max_size=60))
def test_a_tenants_cost_never_shrinks_while_usage_grows(
    steps: list[tuple[int, int, TokenCounts]],
) -> None:
    """Whatever is opened, charged and ended in whatever order, by a gateway that counts up."""
    fold = Fold(by_day=False)
    used: dict[int, TokenCounts] = {}
    total = TokenCounts()
    spent = 0
    for number, what, tokens in steps:
        if number not in used:
            fold.on(Opened(str(number), "ada", "R1", 0))
            used[number] = TokenCounts()
        used[number] += tokens
        total += tokens
        if what:
            fold.on(Progress(0, (Charge(str(number), used[number], cost_pico(R1, used[number])),)))
        else:
            fold.on(ended(str(number), used.pop(number)))
        row = fold.rows()[UsageKey(0, "ada", "")]
        assert row.cost_pico >= spent
        spent = row.cost_pico
        assert (row.tokens, row.cost_pico) == (total, cost_pico(R1, total))
        assert row.open == len(used)
    assert fold.faults == 0
