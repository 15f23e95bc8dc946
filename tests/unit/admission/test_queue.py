"""The bounded queue: what it admits, queues and sheds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import (
    Admission,
    Admit,
    Arrived,
    Capacity,
    Left,
    Passed,
    Queue,
    Reason,
    Shed,
)
from orchestrator.core import Request, RequestId
from orchestrator.spec import AdmissionSpec


def request(name: str, deadline: float = 100.0) -> Request:
    return Request(
        RequestId(name), prompt_tokens=8, max_tokens=8, arrived_at=0.0, deadline=deadline
    )


def test_admits_while_slots_are_free_then_queues_then_sheds() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=1))
    assert admission.on(Capacity(1), 0.0) == []
    assert admission.on(Arrived(request("a")), 0.0) == [Admit(RequestId("a"), Reason.SLOT_FREE)]
    assert admission.on(Arrived(request("b")), 0.0) == [Queue(RequestId("b"), 0, Reason.NO_SLOT)]
    [shed] = admission.on(Arrived(request("c")), 0.0)
    assert isinstance(shed, Shed)
    assert shed.reason is Reason.QUEUE_FULL
    assert shed.retry_after_s > 0


def test_admits_the_one_that_waited_longest_when_a_slot_comes_free() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=2))
    for name in ("a", "b"):
        admission.on(Arrived(request(name)), 0.0)
    assert admission.on(Capacity(1), 0.0) == [Admit(RequestId("a"), Reason.SLOT_FREE)]
    assert admission.on(Left(RequestId("a")), 1.0) == [Admit(RequestId("b"), Reason.SLOT_FREE)]


def test_sheds_a_waiting_request_at_its_deadline_and_not_before() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=2))
    admission.on(Arrived(request("a", deadline=5.0)), 0.0)
    assert admission.on(Passed(), 4.9) == []
    [shed] = admission.on(Passed(), 5.0)
    assert isinstance(shed, Shed)
    assert shed.reason is Reason.DEADLINE_PASSED


def test_a_late_request_is_shed_and_never_admitted_by_the_event_that_frees_a_slot() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=2))
    admission.on(Arrived(request("a", deadline=5.0)), 0.0)
    [decision] = admission.on(Capacity(9), 6.0)
    assert isinstance(decision, Shed)


def test_a_shrunken_fleet_takes_no_slot_away_but_admits_nobody_until_it_fits() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=9))
    admission.on(Capacity(2), 0.0)
    for name in ("a", "b", "c"):
        admission.on(Arrived(request(name)), 0.0)
    assert admission.on(Capacity(1), 0.0) == []
    assert admission.on(Left(RequestId("a")), 0.0) == []
    assert admission.on(Left(RequestId("b")), 0.0) == [Admit(RequestId("c"), Reason.SLOT_FREE)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "leave", "slots", "pass"]), st.integers(0, 12)),
        max_size=60,
    )
)
def test_bounds_hold_and_every_request_is_decided_once(events: list[tuple[str, int]]) -> None:
    """No slot beyond the capacity is given, the queue stays bounded, nobody is decided twice."""
    admission, slots, now = Admission(AdmissionSpec(queue_requests_max=3)), 0, 0.0
    fates: dict[str, str] = {}
    gone: set[str] = set()
    for step, (kind, value) in enumerate(events):
        now += 1.0
        match kind:
            case "arrive":
                event = Arrived(request(f"r{step}", deadline=now + value))
            case "leave":
                alive = sorted(set(fates) - gone)
                if not alive:
                    continue
                gone.add(alive[value % len(alive)])
                event = Left(RequestId(alive[value % len(alive)]))  # type: ignore[assignment]
            case "slots":
                slots = value
                event = Capacity(value)  # type: ignore[assignment]
            case _:
                event = Passed()  # type: ignore[assignment]
        held_before = admission.held
        for decision in admission.on(event, now):
            name = str(decision.request_id)
            assert name not in gone or isinstance(decision, Shed)
            assert fates.get(name) in {None, "queue"}, "decided twice"
            fates[name] = type(decision).__name__.lower()
            if fates[name] == "shed":
                gone.add(name)
        assert admission.held <= max(slots, held_before)
        assert admission.waiting <= 3


def test_a_request_cannot_arrive_twice() -> None:
    admission = Admission(AdmissionSpec(queue_requests_max=2))
    admission.on(Arrived(request("a")), 0.0)
    with pytest.raises(AssertionError):
        admission.on(Arrived(request("a")), 0.0)
