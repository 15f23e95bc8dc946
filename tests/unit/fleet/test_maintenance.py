"""Which nodes are drained, given what Kubernetes says of them."""

import pytest

from orchestrator.fleet import Cause, NodeSeen, Notice, fresh, notices


def test_a_cordoned_node_is_drained_without_haste() -> None:
    assert notices([NodeSeen("b", True), NodeSeen("a")]) == [Notice("b", Cause.CORDONED)]


@pytest.mark.parametrize(
    ("taint", "notice"),
    [
        ("aws-node-termination-handler/spot-itn", Notice("n", Cause.SPOT_NOTICE, 120.0)),
        ("cloud.google.com/impending-node-termination", Notice("n", Cause.SPOT_NOTICE, 30.0)),
        ("karpenter.sh/disrupted", Notice("n", Cause.REMOVED)),
        ("ToBeDeletedByClusterAutoscaler", Notice("n", Cause.REMOVED)),
    ],
)
def test_a_taint_that_announces_an_end_is_a_notice(taint: str, notice: Notice) -> None:
    assert notices([NodeSeen("n", taints=("nvidia.com/gpu", taint))]) == [notice]


def test_taints_that_announce_nothing_are_none() -> None:
    assert notices([NodeSeen("n", taints=("nvidia.com/gpu",))]) == []


def test_of_several_causes_the_one_with_the_least_time_counts() -> None:
    taints = ("karpenter.sh/disrupted", "aws-node-termination-handler/spot-itn")
    assert notices([NodeSeen("n", True, taints)]) == [Notice("n", Cause.SPOT_NOTICE, 120.0)]


def test_only_what_is_new_or_more_urgent_is_told_again() -> None:
    told = [Notice("a", Cause.CORDONED), Notice("b", Cause.SPOT_NOTICE, 120.0)]
    now = [
        Notice("a", Cause.SPOT_NOTICE, 120.0),
        Notice("b", Cause.SPOT_NOTICE, 120.0),
        Notice("c", Cause.CORDONED),
    ]
    assert fresh(told, now) == [now[0], now[2]]
