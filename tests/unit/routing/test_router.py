"""Routing's memory, behind one face."""

import pytest

from orchestrator.core import RankId, Role
from orchestrator.routing import (
    Apply,
    Choice,
    Decision,
    Forget,
    Leg,
    Member,
    Prompt,
    Router,
    StepCosts,
    Stored,
    same_costs,
)
from orchestrator.routing.router import EVENTS_WITHIN_S

A, B = RankId("a"), RankId("b")
COSTS = StepCosts(prefill_base_s=0.001, prefill_token_s=1e-3)
IDS = tuple(range(64))


def router(*, kv_events: bool = False) -> Router:
    made = Router(16, 1000, same_costs(COSTS))
    for rank_id in (A, B):
        made.join(Member(rank_id, Role.UNIFIED, 8, kv_tokens=4096), kv_events=kv_events)
    return made


def ask(
    made: Router, now: float, ids: tuple[int, ...] = IDS, session: str = ""
) -> tuple[Decision, Choice, Prompt]:
    prompt = Prompt(ids, 100, session=session)
    decision = made.decide(made.view([A, B], now), Role.UNIFIED, Leg.WHOLE, prompt)
    assert isinstance(decision.choice, Choice)
    return decision, decision.choice, prompt


def serve(made: Router, submission: str, now: float, cached_tokens: int | None = None) -> Choice:
    decision, choice, prompt = ask(made, now)
    made.sent(submission, decision, prompt, now)
    made.first_token(submission, now + 0.1, cached_tokens)
    made.ended(submission, now + 0.2, cached_tokens)
    return choice


def test_a_prompt_goes_where_it_was_computed() -> None:
    made = router()
    first = serve(made, "1", 0.0)
    again = serve(made, "2", 100.0)
    assert first.hit_tokens == 0
    assert (again.rank_id, again.hit_tokens) == (first.rank_id, 48), "the last token is computed"


def test_with_events_what_they_do_not_confirm_is_believed_for_a_while_only() -> None:
    made = router(kv_events=True)
    serve(made, "1", 0.0)
    assert ask(made, 1.0)[1].hit_tokens == 48
    made.tick(0.1 + EVENTS_WITHIN_S)
    assert ask(made, 10.0)[1].hit_tokens == 0


def test_what_a_failed_submission_would_have_computed_is_not_believed() -> None:
    made = router()
    decision, _, prompt = ask(made, 0.0)
    made.sent("1", decision, prompt, 0.0)
    assert ask(made, 0.1)[1].hit_tokens == 48, "under way"
    made.ended("1", 0.2)
    assert ask(made, 0.3)[1].hit_tokens == 0


def test_learns_whether_an_engine_hits_what_is_still_under_way() -> None:
    made = router()
    now = 0.0
    for number in range(8):
        ids = tuple(range(number * 1000, number * 1000 + 64))
        for part in ("a", "b"):
            decision, _, prompt = ask(made, now, ids)
            made.sent(f"{number}{part}", decision, prompt, now)
        for part in ("a", "b"):
            made.first_token(f"{number}{part}", now + 1, cached_tokens=0)
            made.ended(f"{number}{part}", now + 2)
        now += 10
    decision, _, prompt = ask(made, now, tuple(range(9000, 9064)))
    made.sent("last", decision, prompt, now)
    assert ask(made, now, tuple(range(9000, 9064)))[1].hit_tokens == 0


def test_a_stream_feeds_the_index_and_forgets_it() -> None:
    made = router(kv_events=True)
    made.take(B, [Apply((Stored([1, 2, 3, 4], None, list(IDS)),))])
    assert ask(made, 0.0)[1].rank_id == B
    made.take(B, [Forget()])
    assert ask(made, 0.0)[1].hit_tokens == 0


def test_a_rank_whose_events_are_of_no_use_is_believed_to_hold_what_we_sent_it() -> None:
    made = router(kv_events=True)
    made.without_events(A)
    made.without_events(B)
    serve(made, "1", 0.0)
    made.tick(1000.0)
    assert ask(made, 1000.0)[1].hit_tokens == 48


def test_a_session_returns_to_its_rank_unless_load_says_otherwise() -> None:
    made = router(kv_events=True)
    decision, choice, prompt = ask(made, 1.0, session="s")
    made.sent("1", decision, prompt, 1.0)
    made.first_token("1", 1.1)
    made.ended("1", 1.2)
    made.tick(100.0)
    assert ask(made, 100.0, session="s")[1].rank_id == choice.rank_id
    assert ask(made, 100.0)[1].rank_id != choice.rank_id, "without it the other one's turn"


def test_repeated_and_unknown_news_is_ignored() -> None:
    made = router()
    serve(made, "1", 0.0)
    made.first_token("1", 1.0)
    made.ended("1", 1.0)
    made.ended("never", 1.0)
    assert made.ledger.view(A).in_flight_requests == 0


@pytest.mark.parametrize("kv_events", [True, False])
def test_a_rank_that_leaves_takes_its_requests_along(kv_events: bool) -> None:
    made = router(kv_events=kv_events)
    decision, choice, prompt = ask(made, 0.0)
    made.sent("1", decision, prompt, 0.0)
    made.leave(choice.rank_id)
    made.first_token("1", 0.1)
    made.ended("1", 0.2)
    other = B if choice.rank_id == A else A
    view = made.view([other], 1.0)
    answer = made.decide(view, Role.UNIFIED, Leg.WHOLE, Prompt(IDS, 100)).choice
    assert isinstance(answer, Choice)
    assert (answer.rank_id, answer.hit_tokens) == (other, 0)
