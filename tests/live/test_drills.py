"""One run of each drill of streams, with fake engines; `make drills-streams` runs many."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.spec import EngineKind
from tests.live.drills import (
    DRILLS,
    SETTINGS,
    UNDER_WAY_S,
    Fleet,
    Result,
    fleet_of,
    kept_on,
    page,
    run_drill,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore")]


# `make test` shows the same of them elsewhere: of a drain below, of a killed engine process in
# `test_fake_fleet`.
LONG = {"drain", "kill"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A prefill gang and two decode gangs, and one node free."""
    setting = replace(SETTINGS[EngineKind.FAKE], decode=2, nodes=4)
    with fleet_of(setting, tmp_path_factory.mktemp("drills")) as found:
        yield found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in DRILLS],
)
def test_no_stream_breaks_or_differs(name: str, fleet: Fleet) -> None:
    *_, (_, tally) = run_drill(name, fleet, 1)
    assert tally.streams >= len(fleet.setting.questions)
    assert (tally.broken, tally.different) == ([], [])


def test_an_operator_is_refused_what_would_leave_a_pool_empty(fleet: Fleet) -> None:
    from orchestrator.runtime.drain import drain, gangs
    from orchestrator.runtime.ray_nodes import DrainRefusedError

    [prefill] = [gang for gang in gangs() if gang.pool.endswith("-prefill")]
    with pytest.raises(DrainRefusedError, match="without a ready gang"):
        drain(prefill.gang_id)
    assert fleet.stack.ranks() == fleet.setting.whole


def test_a_spec_that_cannot_be_applied_changes_nothing(fleet: Fleet) -> None:
    from orchestrator.core import SpecError

    before = fleet.decode_gangs()
    with pytest.raises(SpecError, match="nodes"):
        fleet.apply(decode=50)
    assert fleet.decode_gangs() == before


def test_what_does_not_start_leaves_what_ran_in_force(fleet: Fleet) -> None:
    from orchestrator.core import StartError

    before = set(fleet.decode_gangs())
    traffic = fleet.traffic()
    traffic.start()
    with pytest.raises(StartError, match="in force again"):
        # There is a tokenizer in the folder, and no model.
        fleet.apply_text(fleet.spec().replace("kind: fake", "kind: vllm"))
    fleet.await_whole()
    traffic.stop()
    tally = traffic.tally(0.0, float("inf"))
    assert (tally.broken, tally.different) == ([], [])
    assert before & set(fleet.decode_gangs()), "at most one gang had gone"


def test_a_drained_node_gets_nothing_new_and_its_gang_moves_with_no_stream_broken(
    fleet: Fleet,
) -> None:
    from orchestrator.runtime.drain import await_gone, drain, gangs

    victim = next(gang for gang in gangs() if gang.pool.endswith("-decode"))
    [node] = victim.nodes
    traffic = fleet.traffic()
    traffic.start()
    time.sleep(UNDER_WAY_S)
    drained = drain(node)
    assert drained.gang_ids == (victim.gang_id,)
    await_gone(drained.gang_ids, 120.0)
    fleet.await_whole()
    assert all(node not in gang.nodes for gang in gangs())
    traffic.stop()
    tally = traffic.tally(0.0, float("inf"))
    assert tally.streams >= len(fleet.setting.questions)
    assert (tally.broken, tally.different) == ([], [])


def test_a_page_of_results_is_read_back_as_it_was_written() -> None:
    results = [
        Result("fake", "drain", 20, 1_541, 0, 1, 1.9),
        Result("vllm", "kill", 3, 9, 0, 0, 0.1),
    ]
    assert kept_on(page(results)) == results
