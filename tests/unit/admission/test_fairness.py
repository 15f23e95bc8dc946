"""Classes, tenants, deadlines and predictions of the queue."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.admission import (
    Admission,
    Admit,
    Arrived,
    Capacity,
    Decision,
    Left,
    Queue,
    Reason,
    Shed,
    work_s,
)
from orchestrator.core import Request, RequestId
from orchestrator.spec import AdmissionSpec, ClassSpec, StepCosts

CLASSES = (ClassSpec("chat", 10), ClassSpec("batch", -10, wait_s=100.0))


def request(name: str, tenant: str = "", klass: str = "", deadline: float = 1e6) -> Request:
    return Request(RequestId(name), 8, 8, 0.0, deadline, tenant=tenant, klass=klass)


def full(spec: AdmissionSpec, slots: int = 1) -> Admission:
    """An admission all of whose slots are held by a request of 1 s."""
    admission = Admission(spec)
    admission.on(Capacity(slots), 0.0)
    for number in range(slots):
        admission.on(Arrived(request(f"held{number}"), 1.0), 0.0)
    return admission


def order(admission: Admission, first: str, until: int) -> list[str]:
    """Who is admitted when each leaves in turn."""
    found, leaves, now = [], first, 1.0
    for _ in range(until):
        [decision] = admission.on(Left(RequestId(leaves)), now)
        assert isinstance(decision, Admit)
        found.append(str(decision.request_id))
        leaves, now = found[-1], now + 1.0
    return found


def only(decisions: list[Decision]) -> Decision:
    [decision] = decisions
    return decision


def test_a_higher_class_goes_first_and_one_without_a_name_between() -> None:
    admission = full(AdmissionSpec(classes=CLASSES))
    for klass in ("batch", "unheard of", "chat"):
        admission.on(Arrived(request(klass, klass=klass), 1.0), 0.0)
    assert order(admission, "held0", 3) == ["chat", "unheard of", "batch"]


def test_within_a_tenant_the_earliest_deadline_goes_first() -> None:
    admission = full(AdmissionSpec())
    for name, deadline in (("late", 90.0), ("soon", 30.0), ("later", 99.0)):
        admission.on(Arrived(request(name, "a", deadline=deadline), 1.0), 0.0)
    assert order(admission, "held0", 3) == ["soon", "late", "later"]


def test_a_tenant_that_sends_much_does_not_hold_up_one_that_sends_little() -> None:
    admission = full(AdmissionSpec())
    for number in range(50):
        admission.on(Arrived(request(f"much{number:02}", "much"), 1.0), 0.0)
    admission.on(Arrived(request("little", "little"), 1.0), 0.0)
    assert "little" in order(admission, "held0", 2)


def test_shares_are_of_work_and_not_of_requests() -> None:
    admission = full(AdmissionSpec())
    for number in range(40):
        admission.on(Arrived(request(f"long{number:02}", "long"), 4.0), 0.0)
        admission.on(Arrived(request(f"short{number:02}", "short"), 1.0), 0.0)
    found = Counter(name[:4] for name in order(admission, "held0", 25))
    assert found["shor"] == 20
    assert found["long"] == 5


@given(st.integers(2, 6), st.lists(st.integers(0, 5), min_size=120, max_size=120))
def test_tenants_that_always_wait_get_equal_work(tenants: int, works: list[int]) -> None:
    """Jain's index of the work of tenants that all have a backlog is 0.95 or more."""
    admission = full(AdmissionSpec())
    price: dict[str, int] = {}
    whose: dict[str, int] = {}
    for number, work in enumerate(works * tenants):
        name = f"r{number}"
        price[name], whose[name] = 1 + work, number % tenants
        admission.on(Arrived(request(name, f"t{number % tenants}"), 1.0 + work), 0.0)
    served = Counter[int]()
    for name in order(admission, "held0", 40 * tenants):
        served[whose[name]] += price[name]
    total = sum(served.values())
    assert total**2 / (tenants * sum(each**2 for each in served.values())) >= 0.95


def test_a_tenant_may_not_fill_the_queue() -> None:
    admission = full(AdmissionSpec(tenant_requests_max=2))
    for name in ("a", "b"):
        assert isinstance(only(admission.on(Arrived(request(name, "t")), 0.0)), Queue)
    refused = only(admission.on(Arrived(request("c", "t")), 0.0))
    assert isinstance(refused, Shed)
    assert refused.reason is Reason.TENANT_FULL
    assert isinstance(only(admission.on(Arrived(request("d", "other")), 0.0)), Queue)


def test_a_class_may_not_fill_the_queue() -> None:
    spec = AdmissionSpec(classes=(ClassSpec("batch", queue_requests_max=1),))
    admission = full(spec)
    admission.on(Arrived(request("a", klass="batch")), 0.0)
    refused = only(admission.on(Arrived(request("b", klass="batch")), 0.0))
    assert isinstance(refused, Shed)
    assert refused.reason is Reason.CLASS_FULL


def test_a_full_queue_gives_a_lower_classs_place_to_a_higher_one() -> None:
    admission = full(AdmissionSpec(queue_requests_max=1, classes=CLASSES))
    admission.on(Arrived(request("batch", klass="batch")), 0.0)
    shed, queued = admission.on(Arrived(request("chat", klass="chat")), 0.0)
    assert isinstance(shed, Shed)
    assert (shed.request_id, shed.reason) == ("batch", Reason.DISPLACED)
    assert isinstance(queued, Queue)
    refused = only(admission.on(Arrived(request("more", klass="batch")), 0.0))
    assert isinstance(refused, Shed)
    assert refused.reason is Reason.QUEUE_FULL


def test_a_full_queue_gives_a_place_of_the_tenant_with_the_most_to_one_with_less() -> None:
    admission = full(AdmissionSpec(queue_requests_max=4))
    for number in range(4):
        deadline = 100.0 + number
        admission.on(Arrived(request(f"much{number}", "much", deadline=deadline)), 0.0)
    shed, queued = admission.on(Arrived(request("little", "little")), 0.0)
    assert isinstance(shed, Shed)
    assert shed.request_id == "much3"  # the latest deadline
    assert isinstance(queued, Queue)
    assert admission.waiting == 4


def drained(admission: Admission, each_s: float, requests: int) -> float:
    """So many requests of 1 s leave, one each `each_s`; returns when the last has."""
    now = 0.0
    for number in range(requests):
        now += each_s
        admission.on(Left(RequestId(f"held{number}")), now)
    return now


def test_the_time_to_come_back_is_when_what_waits_will_have_begun() -> None:
    admission = full(AdmissionSpec(queue_requests_max=50), slots=100)
    now = drained(admission, 0.5, 90)
    admission.on(Capacity(10), now)
    for number in range(50):
        admission.on(Arrived(request(f"w{number:02}"), 1.0), now)
    refused = only(admission.on(Arrived(request("x"), 1.0), now))
    assert isinstance(refused, Shed)
    assert abs(refused.retry_after_s - 25) <= 2  # 50 requests, two a second


def test_what_would_not_begin_in_time_is_refused_at_once() -> None:
    admission = full(AdmissionSpec(wait_s=10.0), slots=100)
    now = drained(admission, 0.5, 90)
    admission.on(Capacity(10), now)
    fates = [only(admission.on(Arrived(request(f"w{at:02}"), 1.0), now)) for at in range(60)]
    queued = [each for each in fates if isinstance(each, Queue)]
    assert 17 <= len(queued) <= 22  # ten seconds' worth
    shed = fates[-1]
    assert isinstance(shed, Shed)
    assert shed.reason is Reason.WAIT_TOO_LONG
    # another tenant has a share of its own, and so no long wait
    assert isinstance(only(admission.on(Arrived(request("o", "other"), 1.0), now)), Queue)


def test_where_nobody_has_left_yet_nothing_is_predicted() -> None:
    admission = full(AdmissionSpec(queue_requests_max=1, wait_s=1.0))
    assert isinstance(only(admission.on(Arrived(request("a"), 99.0), 0.0)), Queue)
    refused = only(admission.on(Arrived(request("b"), 99.0), 0.0))
    assert isinstance(refused, Shed)
    assert refused.retry_after_s == 5


def test_memory_does_not_grow_with_requests_that_were_refused_or_left() -> None:
    admission = full(AdmissionSpec(queue_requests_max=8))
    for number in range(5_000):
        name = f"r{number}"
        decisions = admission.on(Arrived(request(name, f"t{number % 7}"), 1.0), 0.001 * number)
        if isinstance(decisions[-1], Queue) and number % 2:
            admission.on(Left(RequestId(name)), 0.001 * number)
    assert admission.waiting <= 8
    assert len(admission._deadlines) <= 2 * 8 + 65
    assert sum(len(t.heap) for line in admission._lines for t in line._tenants.values()) <= 200


def test_work_is_the_prefill_and_a_share_of_the_decode_steps() -> None:
    prefill = StepCosts(0.1, 1e-3)
    decode = StepCosts(0.0, 0.0, step_base_s=0.02, step_request_s=1e-3)
    assert work_s(prefill, decode, 1_000, 500.0, 20) == pytest.approx(1.1 + 500 * 0.04 / 20)
