"""Whose turn it is among suspects, and which prompts are refused."""

from orchestrator.core import RequestId, token_ids
from orchestrator.handoff import Quarantine, digest_of
from orchestrator.handoff.quarantine import PROMPTS_MAX, SETTLE_S, TRYING_S

PROMPT, OTHER = token_ids(range(100)), token_ids(range(1, 100))
A, B = RequestId("a"), RequestId("b")


def test_a_condemned_prompt_is_refused_until_its_time_is_over() -> None:
    quarantine = Quarantine()
    assert not quarantine.refuses(PROMPT, 0.0)
    quarantine.condemn(digest_of(PROMPT), 600.0, now=0.0)
    assert quarantine.refuses(PROMPT, 599.9)
    assert not quarantine.refuses(OTHER, 599.9)
    assert not quarantine.refuses(PROMPT, 600.0)


def test_a_prompt_that_is_condemned_again_is_refused_for_longer() -> None:
    quarantine = Quarantine()
    quarantine.condemn(digest_of(PROMPT), 600.0, now=0.0)
    quarantine.condemn(digest_of(OTHER), 601.0, now=0.0)
    quarantine.condemn(digest_of(PROMPT), 600.0, now=500.0)
    assert not quarantine.refuses(OTHER, 700.0)
    assert quarantine.refuses(PROMPT, 1_099.0)


def test_it_remembers_no_more_than_so_many_prompts() -> None:
    quarantine = Quarantine()
    for first in range(PROMPTS_MAX + 1):
        quarantine.condemn(digest_of(token_ids((first, 7))), 600.0, now=0.0)
    assert not quarantine.refuses(token_ids((0, 7)), 0.0)
    assert quarantine.refuses(token_ids((1, 7)), 0.0)


def test_suspects_are_tried_one_after_another() -> None:
    quarantine = Quarantine()
    assert quarantine.may_try(A, 0.0)
    assert not quarantine.may_try(B, 0.0)
    assert quarantine.may_try(A, 0.0), "its next leg"
    quarantine.settled()
    assert quarantine.may_try(B, 0.0)
    assert not quarantine.may_try(A, 0.0)


def gateways() -> tuple[Quarantine, Quarantine]:
    return Quarantine("a", SETTLE_S), Quarantine("b", SETTLE_S)


def pass_on(teller: Quarantine, hearer: Quarantine, now: float) -> None:
    """By two ways, the second of which brings everything late."""
    words = teller.words(now)
    for word in [*words, *words]:
        hearer.heard(word, now)


def test_a_suspect_waits_for_that_of_another_gateway() -> None:
    one, other = gateways()
    assert not one.may_try(A, 0.0), "another may say the same at this moment"
    pass_on(one, other, 0.1)
    assert one.may_try(A, 0.5)
    assert not other.may_try(B, 0.5)
    one.settled()
    pass_on(one, other, 1.0)
    assert not other.may_try(B, 1.0)
    assert other.may_try(B, 1.0 + SETTLE_S)


def test_of_two_that_want_the_turn_at_once_one_has_it() -> None:
    one, other = gateways()
    assert not other.may_try(B, 0.0)
    assert not one.may_try(A, 0.1)
    words = one.words(0.1), other.words(0.1)
    for word in words[0]:
        other.heard(word, 0.15)
    for word in words[1]:
        one.heard(word, 0.15)
    pass_on(other, one, 0.2)
    assert one.may_try(A, 0.6)
    assert not other.may_try(B, 0.6)


def test_the_turn_of_a_gateway_that_has_died_ends_by_itself() -> None:
    one, other = gateways()
    one.may_try(A, 0.0)
    pass_on(one, other, 0.0)
    assert not other.may_try(B, TRYING_S - 0.1)
    other.may_try(B, TRYING_S)
    assert other.may_try(B, TRYING_S + SETTLE_S)


def test_a_long_turn_is_said_again() -> None:
    one, other = gateways()
    one.may_try(A, 0.0)
    for now in range(100):
        pass_on(one, other, float(now))
        assert not other.may_try(B, float(now))


def test_a_prompt_is_refused_at_every_gateway() -> None:
    one, other = gateways()
    one.condemn(digest_of(PROMPT), 600.0, now=0.0)
    pass_on(one, other, 0.1)
    assert other.refuses(PROMPT, 1.0)


def test_where_there_is_one_gateway_nobody_waits_and_nothing_is_said() -> None:
    only = Quarantine()
    assert only.may_try(A, 0.0)
    only.settled()
    assert only.words(0.0) == []
