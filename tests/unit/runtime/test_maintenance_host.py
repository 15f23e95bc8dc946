"""Notices of Kubernetes are told to Ray once, and again until Ray has taken them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core import R1ServeError
from orchestrator.fleet import NodeSeen
from orchestrator.runtime.maintenance import FakeNodes, Maintenance
from orchestrator.telemetry import open_log


class Ray:
    """Drains what it is told to, if it can."""

    def __init__(self) -> None:
        self.drained: list[tuple[str, float | None]] = []
        self.refuses = False

    def drain(self, address: str, cause: str, within_s: float | None) -> None:
        if self.refuses:
            raise R1ServeError("not now")
        self.drained.append((address, within_s))


@pytest.fixture
def ray() -> Ray:
    return Ray()


@pytest.fixture
def nodes() -> FakeNodes:
    fake = FakeNodes()
    fake.seen = {"n1": NodeSeen("n1"), "n2": NodeSeen("n2")}
    fake.pods = {"n1": ["10.0.0.1"], "n2": ["10.0.0.2", "10.0.0.3"]}
    return fake


@pytest.fixture
def it(nodes: FakeNodes, ray: Ray, tmp_path: Path) -> Iterator[Maintenance]:
    log = open_log("maintenance", tmp_path / "log")
    yield Maintenance(nodes, ray.drain, log)
    log.close()


def test_a_cordon_drains_every_pod_of_the_node_once(
    it: Maintenance, nodes: FakeNodes, ray: Ray
) -> None:
    it.look()
    assert ray.drained == []
    nodes.seen["n2"] = NodeSeen("n2", unschedulable=True)
    it.look()
    it.look()
    assert ray.drained == [("10.0.0.2", None), ("10.0.0.3", None)]


def test_a_spot_notice_for_a_cordoned_node_is_told_with_its_time(
    it: Maintenance, nodes: FakeNodes, ray: Ray
) -> None:
    nodes.seen["n1"] = NodeSeen("n1", unschedulable=True)
    it.look()
    nodes.seen["n1"] = NodeSeen("n1", True, ("aws-node-termination-handler/spot-itn",))
    it.look()
    assert ray.drained == [("10.0.0.1", None), ("10.0.0.1", 120.0)]


def test_what_ray_refuses_is_asked_again(it: Maintenance, nodes: FakeNodes, ray: Ray) -> None:
    nodes.seen["n1"] = NodeSeen("n1", unschedulable=True)
    ray.refuses = True
    it.look()
    ray.refuses = False
    it.look()
    assert ray.drained == [("10.0.0.1", None)]


def test_a_kubernetes_that_does_not_answer_changes_nothing(
    it: Maintenance, nodes: FakeNodes, ray: Ray
) -> None:
    nodes.seen["n1"] = NodeSeen("n1", unschedulable=True)
    nodes.broken = True
    it.look()
    assert ray.drained == []
    nodes.broken = False
    it.look()
    assert ray.drained == [("10.0.0.1", None)]


def test_a_node_that_was_uncordoned_can_be_cordoned_again(
    it: Maintenance, nodes: FakeNodes, ray: Ray
) -> None:
    for unschedulable in (True, False, True):
        nodes.seen["n1"] = NodeSeen("n1", unschedulable)
        it.look()
    assert len(ray.drained) == 2
