"""What an operator may drain."""

import pytest

from orchestrator.fleet import Drain, Gang, Phase, Refused, choose_drain

P = Gang("p1", "prefill", Phase.READY, ("n1", "n2"))
D1 = Gang("d1", "decode", Phase.READY, ("n3",))
D2 = Gang("d2", "decode", Phase.READY, ("n4",))
D3 = Gang("d3", "decode", Phase.READY, ("n3",))


def test_a_gang_is_named_by_its_id() -> None:
    assert choose_drain([P, D1, D2], "d1") == Drain(("d1",))


def test_a_node_drains_everything_that_is_on_it() -> None:
    assert choose_drain([P, D1, D2, D3], "n3") == Drain(("d1", "d3"), "n3")


@pytest.mark.parametrize("target", ["p1", "n2"])
def test_the_last_ready_gang_of_a_pool_is_drained_by_force_only(target: str) -> None:
    refused = choose_drain([P, D1], target)
    assert isinstance(refused, Refused)
    assert refused.cause == (f"draining {target} would leave the pool prefill without a ready gang")
    assert isinstance(choose_drain([P, D1], target, forced=True), Drain)


def test_gangs_that_drain_already_do_not_count_as_ready() -> None:
    draining = Gang("d2", "decode", Phase.DRAINING, ("n4",))
    assert isinstance(choose_drain([P, D1, draining], "d1"), Refused)
    assert choose_drain([P, D1, draining], "d2") == Drain(("d2",)), "it ends anyway"


def test_what_is_nowhere_is_refused_with_what_there_is() -> None:
    refused = choose_drain([P, D1], "d9")
    assert isinstance(refused, Refused)
    assert "d1, p1" in refused.cure
