"""What is in flight where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import RankId, Role
from orchestrator.routing import Credit, Ledger, Member

A, B = RankId("a"), RankId("b")


def ledger() -> Ledger:
    made = Ledger()
    for rank_id in (A, B):
        made.join(Member(rank_id, Role.UNIFIED, requests_max=8))
    return made


def test_a_queue_is_done_when_its_works_are_and_no_sooner_than_what_has_not_begun() -> None:
    made = ledger()
    made.sent(A, "1", 100, 10, work_s=2.0, now=10.0)
    made.sent(A, "2", 100, 10, work_s=3.0, now=11.0)
    view = made.view(A)
    assert (view.prefill_free_at, view.prefill_rest_s) == (15.0, 3.0)
    assert (view.in_flight_requests, view.in_flight_tokens) == (2, 220)


def test_a_first_token_corrects_the_prediction() -> None:
    made = ledger()
    made.sent(A, "1", 100, 10, work_s=2.0, now=10.0)
    made.sent(A, "2", 100, 10, work_s=3.0, now=11.0)
    made.prefilled(A, "1", now=14.0)  # predicted for 12
    view = made.view(A)
    assert (view.prefill_free_at, view.prefill_rest_s) == (17.0, 0.0)
    assert (view.decoding_requests, view.decoding_tokens) == (1, 100)


def test_what_came_after_a_pass_began_waits_for_the_next() -> None:
    made = ledger()
    made.sent(A, "1", 100, 10, work_s=2.0, now=10.0, due_at=15.0)
    assert made.view(A).prefill_due_at == 0.0, "it is in the pass under way"
    made.sent(A, "2", 100, 10, work_s=3.0, now=11.0, due_at=19.0)
    made.sent(A, "3", 100, 10, work_s=1.0, now=11.5, due_at=18.0)  # it came by another way
    made.sent(A, "4", 100, 10, work_s=1.0, now=11.6)  # nothing is promised
    assert made.view(A).prefill_due_at == 18.0
    made.prefilled(A, "1", now=12.0)  # the others begin together
    assert made.view(A).prefill_due_at == 0.0


def test_a_view_is_one_object_until_something_changes() -> None:
    made = ledger()
    before = made.view(A)
    made.sent(B, "1", 100, 10, 1.0, 0.0)
    assert made.view(A) is before
    made.sent(A, "2", 100, 10, 1.0, 0.0)
    assert made.view(A) is not before


def test_what_a_rank_reports_beyond_our_own_is_others() -> None:
    made = ledger()
    made.sent(A, "1", 100, 10, work_s=2.0, now=0.0)
    made.reported(A, running=3, waiting=4, now=1.0)
    view = made.view(A)
    assert (view.others_requests, view.engine_running, view.engine_waiting) == (6, 3, 4)
    assert view.others_prefill_s == pytest.approx(3 * 2.0), "three wait that are not ours"
    made.reported(A, running=1, waiting=0, now=2.0)
    assert made.view(A).others_requests == 0


def test_what_other_gateways_say_of_theirs_replaces_what_a_report_implies() -> None:
    made = ledger()
    made.reported(A, running=9, waiting=0, now=1.0, others=Credit(3, 0.75))
    view = made.view(A)
    assert (view.others_requests, view.others_prefill_s) == (3, 0.75)
    made.reported(A, running=9, waiting=0, now=2.0, others=Credit(0, 0.0))
    assert made.view(A).others_requests == 0, "what is left is being cancelled"


def test_arrivals_are_counted_per_second() -> None:
    made = ledger()
    for number in range(400):
        made.arrived(number * 0.25)
    assert made.arrivals_per_s == pytest.approx(4.0)


def test_what_is_not_known_is_ignored() -> None:
    made = ledger()
    made.prefilled(A, "never", 0.0)
    made.ended(A, "never", 0.0)
    made.reported(RankId("gone"), 1, 1, 0.0)
    made.sent(A, "1", 1, 1, 1.0, 0.0)
    made.leave(A)
    made.ended(A, "1", 0.0)
    assert made.in_flight(A) == 0


@given(st.lists(st.tuples(st.sampled_from("spe"), st.integers(0, 5)), max_size=40))
def test_at_rest_nothing_is_left(events: list[tuple[str, int]]) -> None:
    made = ledger()
    open_ids: dict[str, bool] = {}
    for at, (kind, number) in enumerate(events):
        submission = str(number)
        if kind == "s" and submission not in open_ids:
            made.sent(A, submission, 10 + number, 5, 0.1 * number, float(at))
            open_ids[submission] = True
        elif kind == "p":
            made.prefilled(A, submission, float(at))
        elif kind == "e":
            made.ended(A, submission, float(at))
            open_ids.pop(submission, None)
        view = made.view(A)
        assert view.in_flight_requests == len(open_ids)
        assert 0 <= view.decoding_requests <= len(open_ids)
    for submission in open_ids:
        made.ended(A, submission, 99.0)
    view = made.view(A)
    assert (view.in_flight_requests, view.in_flight_tokens) == (0, 0)
    assert (view.decoding_requests, view.decoding_tokens) == (0, 0)
    assert (view.prefill_free_at, view.prefill_rest_s) == (0.0, 0.0)
