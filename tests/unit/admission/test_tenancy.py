"""What a tenant may begin at one gateway."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import PICO, Limit, Refused, Tenancy
from orchestrator.core import TokenClass, TokenCounts
from orchestrator.spec import BudgetSpec, TenantSpec, TenantsSpec, TokenLimits


def tenancy(gateways: int = 1, default: TenantSpec | None = None, **ada: object) -> Tenancy:
    spec = replace(TenantSpec(), **ada)  # type: ignore[arg-type]
    return Tenancy(TenantsSpec(default or TenantSpec(), {"ada": spec}), gateways)


def begin(it: Tenancy, *, streamed: bool = False, tokens: int = 10, now: float = 0.0) -> object:
    refused = it.open("ada", streamed=streamed, prompt_tokens=tokens, now=now)
    return None if refused is None else (refused.limit, refused.retry_after_s)


def test_open_requests_and_streams_are_counted_apart() -> None:
    it = tenancy(requests_max=3, streams_max=1)
    assert begin(it, streamed=True) is None
    assert begin(it, streamed=True) == (Limit.STREAMS, 1)
    assert begin(it) is None
    assert begin(it) is None
    assert begin(it) == (Limit.REQUESTS, 1)
    it.close("ada", streamed=True, now=0.0)
    assert begin(it, streamed=True) is None


def test_who_has_no_limits_of_their_own_gets_the_default_each() -> None:
    it = tenancy(default=TenantSpec(requests_max=1))
    for name in ("bob", "eve"):
        assert it.open(name, streamed=False, prompt_tokens=1, now=0.0) is None
        assert it.open(name, streamed=False, prompt_tokens=1, now=0.0) is not None
    assert begin(it) is None


def test_a_rate_says_when_to_come_back() -> None:
    it = tenancy(requests_per_minute=2)
    assert [begin(it), begin(it)] == [None, None]
    assert begin(it) == (Limit.REQUESTS_PER_MINUTE, 30)
    assert begin(it, now=29.9) == (Limit.REQUESTS_PER_MINUTE, 1)
    assert begin(it, now=30.0) is None


def test_each_class_of_tokens_has_its_rate_and_is_named() -> None:
    it = tenancy(tokens_per_minute=TokenLimits(input=60, thinking=600))
    assert begin(it, tokens=70) is None
    assert it.open("ada", streamed=False, prompt_tokens=1, now=0.0) == Refused(
        Limit.TOKENS_PER_MINUTE, 60, 11, TokenClass.INPUT
    )
    it.charge("ada", TokenCounts(input=-70, cached_input=70, thinking=600), 0.0)  # all was cached
    assert it.open("ada", streamed=False, prompt_tokens=1, now=0.0) == Refused(
        Limit.TOKENS_PER_MINUTE, 600, 1, TokenClass.THINKING
    )
    assert begin(it, now=1.0) is None


def test_a_gateway_has_its_share_of_rates_and_of_what_is_open_rounded_up() -> None:
    it = tenancy(4, requests_max=6, requests_per_minute=120)
    assert [begin(it), begin(it)] == [None, None]
    assert begin(it) == (Limit.REQUESTS, 1)
    for _ in range(28):
        it.close("ada", streamed=False, now=0.0)
        assert begin(it) is None
    it.close("ada", streamed=False, now=0.0)
    assert begin(it) == (Limit.REQUESTS_PER_MINUTE, 2)


def test_standing_is_a_matter_of_the_budget_and_of_suspension() -> None:
    it = tenancy(budget=BudgetSpec(Decimal("0.50"), Decimal("1.25")))
    assert it.standing("ada", 175 * PICO // 100 - 1) is None
    assert it.standing("ada", 175 * PICO // 100) == Refused(Limit.BUDGET)
    assert it.standing("bob", 10**30) is None, "has no budget"
    assert tenancy(suspended=True).standing("ada", 0) == Refused(Limit.SUSPENDED)


def test_new_limits_keep_what_is_open_and_what_was_taken() -> None:
    it = tenancy(requests_max=2, requests_per_minute=10)
    assert [begin(it), begin(it)] == [None, None]
    more = TenantSpec(requests_max=4, requests_per_minute=9)
    it.update(TenantsSpec(TenantSpec(), {"ada": more}), 0.0)
    assert [begin(it), begin(it)] == [None, None]
    assert begin(it) == (Limit.REQUESTS, 1)
    it.close("ada", streamed=False, now=0.0)
    assert [begin(it), begin(it)] == [None, (Limit.REQUESTS, 1)]
    it.update(TenantsSpec(TenantSpec(), {"ada": replace(more, requests_max=None)}), 0.0)
    assert [begin(it) for _ in range(6)] == [None] * 5 + [(Limit.REQUESTS_PER_MINUTE, 7)]
    it.update(TenantsSpec(), 0.0)
    assert begin(it) is None


def test_memory_is_bounded_by_who_is_active() -> None:
    it = Tenancy(TenantsSpec(TenantSpec(requests_per_minute=60)), 1)
    for at in range(5_000):
        assert it.open(f"t{at}", streamed=False, prompt_tokens=1, now=float(at)) is None
        it.close(f"t{at}", streamed=False, now=float(at))
    assert it.known <= 1_024


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=80),
)
def test_all_gateways_together_exceed_a_number_by_less_than_there_are_of_them(
    most: int, gateways: int, steps: list[tuple[int, bool]]
) -> None:
    each = [tenancy(gateways, requests_max=most) for _ in range(gateways)]
    held = [0] * gateways
    for at, opens in steps:
        at %= gateways
        if opens:
            held[at] += begin(each[at]) is None
        elif held[at]:
            each[at].close("ada", streamed=False, now=0.0)
            held[at] -= 1
        assert sum(held) <= most + gateways - 1


@pytest.mark.parametrize("gateways", [1, 3])
def test_all_gateways_together_keep_to_a_rate(gateways: int) -> None:
    each = [tenancy(gateways, requests_per_minute=30) for _ in range(gateways)]
    begun = sum(begin(it, now=second / 2) is None for second in range(240) for it in each)
    assert begun <= 30 + 30 * 120 / 60
