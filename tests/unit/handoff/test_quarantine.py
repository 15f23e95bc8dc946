"""Whose turn it is among suspects, and which prompts are refused."""

from orchestrator.core import RequestId, token_ids
from orchestrator.handoff import Quarantine, digest_of
from orchestrator.handoff.quarantine import PROMPTS_MAX

PROMPT, OTHER = token_ids(range(100)), token_ids(range(1, 100))
A, B = RequestId("a"), RequestId("b")


def test_a_condemned_prompt_is_refused_until_its_time_is_over() -> None:
    quarantine = Quarantine()
    assert not quarantine.refuses(PROMPT, 0.0)
    quarantine.condemn(digest_of(PROMPT), until=600.0)
    assert quarantine.refuses(PROMPT, 599.9)
    assert not quarantine.refuses(OTHER, 599.9)
    assert not quarantine.refuses(PROMPT, 600.0)


def test_a_prompt_that_is_condemned_again_is_refused_for_longer() -> None:
    quarantine = Quarantine()
    quarantine.condemn(digest_of(PROMPT), until=600.0)
    quarantine.condemn(digest_of(OTHER), until=601.0)
    quarantine.condemn(digest_of(PROMPT), until=1_100.0)
    assert not quarantine.refuses(OTHER, 700.0)
    assert quarantine.refuses(PROMPT, 1_099.0)


def test_it_remembers_no_more_than_so_many_prompts() -> None:
    quarantine = Quarantine()
    for first in range(PROMPTS_MAX + 1):
        quarantine.condemn(digest_of(token_ids((first, 7))), until=600.0)
    assert not quarantine.refuses(token_ids((0, 7)), 0.0)
    assert quarantine.refuses(token_ids((1, 7)), 0.0)


def test_suspects_are_tried_one_after_another() -> None:
    quarantine = Quarantine()
    assert quarantine.may_try(A)
    assert not quarantine.may_try(B)
    assert quarantine.may_try(A), "its next leg"
    quarantine.settled()
    assert quarantine.may_try(B)
    assert not quarantine.may_try(A)
