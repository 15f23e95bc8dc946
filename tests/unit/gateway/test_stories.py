"""What is kept of requests is bounded, sampled by their ids, and tells each decision again."""

from dataclasses import replace

from orchestrator.core import RankId, Request, RequestId, Role
from orchestrator.gateway.story import Over, RankChosen, Stories, Story
from orchestrator.gateway.why import CANDIDATES_MAX, why
from orchestrator.routing import Leg, Member, NoRank, Prompt, Router, same_costs
from orchestrator.spec import StepCosts, WhySpec

COSTS = StepCosts(0.005, 1e-4)


def request(number: int) -> Request:
    return Request(RequestId(f"request-{number}"), 100, 50, 1.0, 2.0, "ada/chat", "ada", "premium")


def told(ranks: int, excluded: tuple[RankId, ...] = (), requests_max: int = 8) -> Story:
    """A story with one decision among so many ranks, each with more in flight than the last."""
    router = Router(16, 1_000, same_costs(COSTS))
    names = [RankId(f"gang-{number:02}/0") for number in range(ranks)]
    for number, rank_id in enumerate(names):
        router.join(Member(rank_id, Role.UNIFIED, requests_max), kv_events=True)
        router.ledger.sent(rank_id, f"s{number}", 10, 10, 0.01 * number, 0.5)
    prompt = Prompt(list(range(100)), 50)
    decision = router.decide(router.view(names, 2.0), Role.UNIFIED, Leg.WHOLE, prompt, excluded)
    story = Stories(WhySpec()).begin(request(0), "")
    assert story is not None
    story.events.append(RankChosen(2.0, decision, COSTS))
    return story


def test_the_oldest_are_forgotten_and_it_is_known_that_they_were_there() -> None:
    stories = Stories(WhySpec(requests_max=3))
    for number in range(5):
        assert stories.begin(request(number), "") is not None
    assert [story.request_id for story in stories] == ["request-2", "request-3", "request-4"]
    assert stories.forgot("request-0")
    assert not stories.forgot("request-4")
    assert not stories.forgot("request-9")


def test_views_of_ranks_are_bounded_whatever_the_requests() -> None:
    stories = Stories(WhySpec(rank_views_max=1_000))
    for number in range(50):
        story = stories.begin(request(number), "")
        assert story is not None
        for _ in range(2):
            stories.grew(story, 128)
        assert sum(each.views for each in stories) <= 1_000
    assert len(stories) == 3


def test_one_that_outgrows_the_bound_alone_is_kept_and_forgotten_ones_count_no_more() -> None:
    stories = Stories(WhySpec(rank_views_max=100))
    first, second = stories.begin(request(0), ""), stories.begin(request(1), "")
    assert first is not None
    assert second is not None
    stories.grew(second, 500)
    assert [story.request_id for story in stories] == ["request-1"]
    stories.grew(first, 500)  # it still runs
    assert stories.get("request-1") is second


def test_a_share_is_of_ids_so_that_it_is_all_of_a_request_or_nothing() -> None:
    stories = Stories(WhySpec(share=0.25))
    wanted = [stories.wants(f"request-{number}") for number in range(4_000)]
    assert 800 < sum(wanted) < 1_200
    assert wanted == [stories.wants(f"request-{number}") for number in range(4_000)]
    assert not any(Stories(WhySpec(share=0.0)).wants(str(number)) for number in range(100))


def test_what_is_told_has_neither_tenant_nor_session() -> None:
    said = repr(why(told(3), "r1", "gateway", 5.0))
    assert "ada" not in said
    assert "premium" in said


def test_the_cheapest_candidates_are_told_and_the_rest_is_counted() -> None:
    (step,) = why(told(40), "r1", "gateway", 5.0).steps
    assert len(step.candidates) == CANDIDATES_MAX
    assert step.candidates_left_out == 40 - CANDIDATES_MAX
    costs = [each.cost_s for each in step.candidates if each.cost_s is not None]
    assert costs == sorted(costs)
    assert step.replayed is True


def test_ranks_that_could_not_take_it_are_told_with_the_reason() -> None:
    (step,) = why(told(3, excluded=(RankId("gang-01/0"),)), "r1", "gateway", 5.0).steps
    notes = {each.rank_id: each.note for each in step.candidates}
    assert notes["gang-01/0"] == "failed it before"
    full = told(2, requests_max=1)
    (step,) = why(full, "r1", "gateway", 5.0).steps
    assert [each.note for each in step.candidates] == ["full", "full"]
    assert (step.rank_id, step.second_rank_id, step.reason) == ("", "", "all_full")


def test_a_router_that_decides_otherwise_today_is_said_to() -> None:
    story = told(3)
    (event,) = story.events
    assert isinstance(event, RankChosen)
    otherwise = replace(event.decision, choice=NoRank(event.decision.choice.reason))
    story.events = [RankChosen(2.0, otherwise, COSTS), Over(3.0, None, 0, 0)]
    step, over = why(story, "r1", "gateway", 5.0).steps
    assert step.replayed is False
    assert over.reason == "left"
