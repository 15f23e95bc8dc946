"""What befalls a gang of real vLLM on two nodes: noticed in time, ended whole, and back again."""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from orchestrator.runtime.namespaces import Namespaces
from tests.layouts.layout_stack import QUESTIONS, LayoutStack, layout_stack
from tests.live.local_stack import Asker, Completion, end_of, stream, until

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(1_200)]

LAYOUT = "dp2ep2"
BACK_S = 300.0
STUCK_S, CUT_OFF_S = 30.0, 20.0
LONG_ANSWER = {"temperature": 0.0, "max_tokens": 300}
NOTICED_S = 15.0  # beyond the limit: judged once a second, on cores that are busy


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """One gang of two data-parallel ranks, and a node more than it needs.

    The weights recite: an answer that goes on elsewhere is computed as a prompt there, and random
    weights' nearly flat logits tell the two ways of computing apart.
    """
    folder = tmp_path_factory.mktemp("gang")
    limits = {"stuck_after_s": STUCK_S, "cut_off_after_s": CUT_OFF_S}
    with layout_stack(folder, (LAYOUT,), 3, 1, "scripted", fleet=limits) as stack:
        yield stack


def is_back(stack: LayoutStack, failures: int) -> None:
    """Returns when so many gangs have failed and their successor serves with both ranks."""
    until(lambda: len(stack.log("gang_failed")) >= failures, BACK_S)
    until(lambda: len(stack.log("rank_ready")) >= 2 * (failures + 1), BACK_S)
    until(lambda: stack.stack.ranks() == {"unified": 2}, BACK_S)


def answer(stack: LayoutStack) -> Completion:
    """The same as a whole."""
    client, name = stack.stack.client(), stack.names[LAYOUT]
    return stream(client, QUESTIONS[0], sampling=LONG_ANSWER, model=name)


def ask(stack: LayoutStack) -> Asker:
    """A long answer that is under way when this returns."""
    client = stack.stack.client(timeout_s=2 * BACK_S)
    asker = Asker(client, QUESTIONS[0], stack.names[LAYOUT], LONG_ANSWER)
    asker.start()
    return asker


def test_a_killed_process_ends_the_gang_and_costs_no_request(gang: LayoutStack) -> None:
    undisturbed = answer(gang)
    asker = ask(gang)
    until(lambda: len(asker.heard) > 3, 60)
    [pid] = gang.stack.pids("EngineCore_DP1")
    os.kill(pid, signal.SIGKILL)
    is_back(gang, failures=1)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    [failed] = gang.log("gang_failed")
    assert failed["reason"] == "rank_exited"
    assert "its log ends: " in str(failed["cause"])


def test_a_frozen_rank_is_found_by_the_lack_of_progress(gang: LayoutStack) -> None:
    """Every process lives and every health endpoint is green."""
    undisturbed = answer(gang)
    [pid] = gang.stack.pids("EngineCore_DP1")
    os.kill(pid, signal.SIGSTOP)
    asker = ask(gang)
    is_back(gang, failures=2)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    assert gang.log("gang_failed")[1]["reason"] == "stuck"
    assert not psutil.pid_exists(pid)


def test_a_gang_whose_second_node_is_cut_off_starts_anew_elsewhere(gang: LayoutStack) -> None:
    undisturbed = answer(gang)
    network = Namespaces(gang.stack.process.pid, 3)
    old = gang.log("gang_starting")[-1]
    assert isinstance(old["hosts"], list)
    lost = old["hosts"][1]
    node = int(lost.rpartition(".")[2]) - 2
    network.cut(node)
    began = time.monotonic()
    try:
        until(lambda: len(gang.log("gang_failed")) == 3, CUT_OFF_S + NOTICED_S)
        print(f"noticed {time.monotonic() - began:.1f} s after the cut, limit {CUT_OFF_S:g} s")
        failed = gang.log("gang_failed")[2]
        assert (failed["reason"], failed["cause"]) == (
            "cut_off",
            f"node {lost}: no answer for {CUT_OFF_S:g} s",
        )
        is_back(gang, failures=3)
        print(f"serves again {time.monotonic() - began:.1f} s after the cut")
        new = gang.log("gang_starting")[-1]
        assert isinstance(new["hosts"], list)
        assert lost not in new["hosts"]
        left = gang.stack.pids(str(old["gang"]))
        assert left == [], "the old gang's processes, on the node that was cut off too"
        assert answer(gang) == undisturbed
    finally:
        network.mend(node)
