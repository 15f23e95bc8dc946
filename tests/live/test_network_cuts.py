"""Cuts between real processes on nodes with addresses of their own: a gateway, a gang, the head.

A cut that heals within `fleet.cut_off_after_s` is a pause: nothing is lost, moved or asked twice.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.engines.tiny_checkpoint import write_tokenizer
from orchestrator.runtime.namespaces import Namespaces
from tests.live.local_stack import (
    Asker,
    Completion,
    LocalStack,
    end_of,
    local_stack,
    need_namespaces,
    stream,
    until,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

NODES = 6
CUT_S = 6.0  # below what a token channel and a node may be silent for
QUESTION = "Say something long about the weather of the last hundred years, please. " * 8
BACK_S = 120.0
SPEC = """
models:
  - path: {path}
    name: DeepSeek-R1
    max_model_len: 2048
    engine: {{kind: fake, device: cpu, fake_step_s: 0.1}}
    pools:
      - {{role: prefill}}
      - {{role: decode, replicas: 3}}
gateway: {{host: 0.0.0.0}}
fleet: {{health_period_s: 1, start_attempts: 1, cut_off_after_s: 15, drain_s: 60}}
local: {{nodes: {nodes}, gpus_per_node: 1, namespaces: true}}
"""
WHOLE = {"prefill": 1, "decode": 3}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A prefill gang and three decode gangs, each on a node of its own, and two nodes more."""
    need_namespaces()
    folder = tmp_path_factory.mktemp("cuts")
    write_tokenizer(folder / "tokenizer")
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.format(path=folder / "tokenizer", nodes=NODES))
    with local_stack(folder, "--spec", str(spec)) as stack:
        yield stack


@pytest.fixture(scope="module")
def undisturbed(fleet: LocalStack) -> Completion:
    """What every stream is to be."""
    return stream(fleet.client(), QUESTION)


def streams_through(
    fleet: LocalStack,
    undisturbed: Completion,
    cut: Callable[[], None],
    mend: Callable[[], None],
) -> None:
    """Eight streams are under way when the cut comes, and eight more are asked for during it."""
    before = ends(fleet)
    askers = [Asker(fleet.client(timeout_s=BACK_S), QUESTION) for _ in range(16)]
    for asker in askers[:8]:
        asker.start()
    until(lambda: all(len(asker.heard) > 3 for asker in askers[:8]), 60)
    cut()
    try:
        for asker in askers[8:]:
            asker.start()
        time.sleep(CUT_S)
    finally:
        mend()
    end_of(askers, BACK_S)
    whole: list[Completion | None] = [undisturbed] * len(askers)
    assert [asker.completion for asker in askers] == whole, [asker.error for asker in askers]
    until(lambda: sum((ends(fleet) - before).values()) >= len(askers), 10)
    after = ends(fleet) - before
    assert len(after) == len(askers), "no request was begun twice"
    assert set(after.values()) == {1}, "each ended once"
    until(lambda: fleet.ranks() == WHOLE, BACK_S)


def ends(fleet: LocalStack) -> Counter[str]:
    """How often each request has ended at a gateway."""
    lines = [
        json.loads(line)
        for path in Path(fleet.log_dir).glob("gateway-*.log")
        for line in path.read_text().splitlines()
    ]
    return Counter(line["request_id"] for line in lines if line["event"] == "request_ended")


DECODE = ("orchestrator.engines.server", "--role decode")
GATEWAY = ("ServeReplica:r1-serve:gateway",)


def nodes_of(fleet: LocalStack, words: tuple[str, ...]) -> list[int]:
    """The nodes of the processes with these words."""
    network = Namespaces(fleet.process.pid, NODES)
    found = (network.node_of(pid) for pid in fleet.pids(*words))
    return [node for node in found if node is not None]


def test_a_gang_that_is_cut_off_and_comes_back_has_lost_no_request(
    fleet: LocalStack, undisturbed: Completion
) -> None:
    network = Namespaces(fleet.process.pid, NODES)
    node = nodes_of(fleet, DECODE)[0]
    streams_through(fleet, undisturbed, lambda: network.cut(node), lambda: network.mend(node))


def test_a_gateway_that_is_cut_off_and_comes_back_has_lost_no_request(
    fleet: LocalStack, undisturbed: Completion
) -> None:
    network = Namespaces(fleet.process.pid, NODES)
    node = nodes_of(fleet, GATEWAY)[0]
    streams_through(fleet, undisturbed, lambda: network.cut(node), lambda: network.mend(node))


def test_a_head_that_is_cut_off_and_comes_back_has_lost_no_request(
    fleet: LocalStack, undisturbed: Completion
) -> None:
    """The controller, the cluster's tables and HAProxy are there; clients too."""
    network = Namespaces(fleet.process.pid, NODES)
    streams_through(fleet, undisturbed, network.cut_head, network.mend_head)


def test_a_gang_that_stays_cut_off_is_replaced_and_its_requests_go_on_elsewhere(
    fleet: LocalStack, undisturbed: Completion
) -> None:
    network = Namespaces(fleet.process.pid, NODES)
    node = next(node for node in nodes_of(fleet, DECODE) if node not in nodes_of(fleet, GATEWAY))
    askers = [Asker(fleet.client(timeout_s=BACK_S), QUESTION) for _ in range(8)]
    for asker in askers:
        asker.start()
    until(lambda: all(len(asker.heard) > 3 for asker in askers), 60)
    before = ends(fleet)
    network.cut(node)
    try:
        end_of(askers, BACK_S)
        assert [asker.completion for asker in askers] == [undisturbed] * len(askers)
        until(lambda: fleet.ranks() == WHOLE, BACK_S)
    finally:
        network.mend(node)
    assert set((ends(fleet) - before).values()) == {1}
