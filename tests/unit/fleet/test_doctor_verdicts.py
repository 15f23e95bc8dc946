"""Verdicts on evidence that no fleet of fakes shows: what is not known, busy, or in between."""

from dataclasses import replace

import pytest

from orchestrator.core import RankId, Role
from orchestrator.engines.collective import bus_bytes_per_s
from orchestrator.fleet.doctor import (
    PROBES,
    Answer,
    Evidence,
    Features,
    PairSeen,
    PathSeen,
    Probe,
    RankSeen,
    SilentFault,
    State,
    Vitals,
    Wanted,
    examine,
    links,
    worst,
)

ANSWER = Answer("length", "", (5, 6, 7), 0, 0.05, 0.02, (5,))
VITALS = Vitals(0.0, True, 10, 0, 0, 0.0)
WANTED = Wanted(apart=True, max_model_len=1_000, thinks=True)


def rank(name: str, role: Role = Role.DECODE, **changes: object) -> RankSeen:
    seen = RankSeen(
        RankId(name),
        role,
        reached=True,
        engine="vllm 0.32.0",
        features=Features(kv_connector="NixlConnector"),
        max_model_len=1_000,
        block_size=64,
        kv_blocks=100,
        before=VITALS,
        after=VITALS,
        answer=ANSWER,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def evidence(*ranks: RankSeen, **changes: object) -> Evidence:
    return replace(Evidence("r1", WANTED, ranks), **changes)  # type: ignore[arg-type]


def states(seen: Evidence, probe: Probe) -> dict[str, State]:
    return {f.subject: f.state for f in PROBES[probe](seen)}


def test_without_any_rank_that_is_the_fault_and_nothing_else_is_made_up() -> None:
    faults = [f for f in examine(evidence()) if f.state is State.FAULT]
    assert [(f.probe, f.seen) for f in faults] == [(Probe.REACHED, "no rank is listed")]


def test_a_rank_that_takes_steps_and_has_no_time_for_us_is_busy_and_not_hung() -> None:
    late = replace(ANSWER, finish=None, ids=(), first_s=None)
    stuck = rank("a", answer=late)
    busy = rank("b", answer=late, after=replace(VITALS, steps=900, waiting=40))
    found = states(evidence(stuck, busy), Probe.ANSWERS)
    assert found == {"a": State.FAULT, "b": State.UNKNOWN}


def test_what_was_left_in_peace_is_not_available_with_the_reason() -> None:
    seen = evidence(rank("a", answer=None, skipped="busy: 40 requests wait there"))
    (finding,) = PROBES[Probe.ANSWERS](seen)
    assert (finding.state, finding.seen) == (State.UNKNOWN, "busy: 40 requests wait there")


def test_a_slow_rank_that_has_much_more_to_do_than_its_peers_is_no_fault() -> None:
    slow = replace(ANSWER, gap_s=0.2)
    ranks = [rank("a"), rank("b"), rank("c", answer=slow)]
    assert states(evidence(*ranks), Probe.PACE)["c"] is State.FAULT
    ranks[2] = replace(ranks[2], before=replace(VITALS, running=30))
    assert states(evidence(*ranks), Probe.PACE)["c"] is State.UNKNOWN


def test_a_rank_alone_in_its_pool_has_no_pace_to_be_held_to() -> None:
    assert states(evidence(rank("a")), Probe.PACE) == {"a": State.UNKNOWN}


@pytest.mark.parametrize(
    ("moved", "state"),
    [(130.0, State.OK), (64.0, State.FAULT), (0.0, State.FAULT), (None, State.UNKNOWN)],
)
def test_a_transfer_is_proven_by_what_the_decode_engine_counts(
    moved: float | None, state: State
) -> None:
    pair = PairSeen(RankId("p"), RankId("d"), 133, ANSWER, ANSWER, ANSWER, moved)
    seen = evidence(rank("p", Role.PREFILL), rank("d"), pairs=(pair,))
    assert states(seen, Probe.TRANSFER) == {"p → d": state}


def test_kernels_that_round_otherwise_are_no_foreign_text() -> None:
    alone = replace(ANSWER, ids=(5, 6), best_ids=(5, 9))
    pair = PairSeen(RankId("p"), RankId("d"), 133, ANSWER, None, alone, 133.0)
    for first, state in ((5, State.OK), (9, State.OK), (8, State.FAULT)):
        decoded = replace(ANSWER, ids=(first, 1))
        seen = evidence(rank("d"), pairs=(replace(pair, decoded=decoded),))
        assert states(seen, Probe.TRANSFERRED_TEXT) == {"p → d": state}


@pytest.mark.parametrize(
    ("path", "reason", "state"),
    [
        ("transfer", "long_prompt", State.OK),
        ("in_place", "dear_transfer", State.OK),
        ("in_place", "no_prefill_rank", State.FAULT),
    ],
)
def test_prefill_in_place_is_right_where_moving_is_dearer_and_only_there(
    path: str, reason: str, state: State
) -> None:
    seen = evidence(rank("d"), path=PathSeen(path, reason))
    assert states(seen, Probe.PATH) == {"r1": state}


def test_blocks_are_judged_at_rest_only() -> None:
    more = rank("a", rest_kv_usage=0.05)
    assert states(evidence(more), Probe.BLOCKS_FREED) == {"a": State.FAULT}
    busy = rank("b", before=replace(VITALS, running=1))
    found = states(evidence(more, busy), Probe.BLOCKS_FREED)
    assert found == {"a": State.UNKNOWN, "b": State.UNKNOWN}


def test_a_clock_is_given_what_the_look_at_it_may_be_wrong_by() -> None:
    ranks = [
        rank("a", clock_off_s=1.4, clock_error_s=0.5),
        rank("b", clock_off_s=-1.4, clock_error_s=0.1),
    ]
    assert states(evidence(*ranks), Probe.CLOCK) == {"a": State.OK, "b": State.FAULT}


def test_too_few_drafts_are_no_verdict_and_none_at_all_is_one() -> None:
    wanted = replace(WANTED, draft_tokens=1)
    on = Features(draft_tokens=1)

    def drawn(drafts: float, taken: float) -> RankSeen:
        counters = {"drafts": drafts, "accepted_tokens": taken}
        return rank(f"{drafts:g}", features=on, after=replace(VITALS, counters=counters))

    ranks = [drawn(0, 0), drawn(10, 0), drawn(500, 2), drawn(501, 400)]
    found = states(evidence(*ranks, wanted=wanted), Probe.DRAFTS)
    assert list(found.values()) == [State.FAULT, State.UNKNOWN, State.FAULT, State.OK]
    assert states(evidence(*ranks), Probe.DRAFTS)["0"] is State.OFF


def test_whichever_rank_the_gateway_met_first_the_odd_one_is_named() -> None:
    ranks = [rank(name) for name in "abc"] + [rank("z", block_size=128)]
    assert states(evidence(*ranks), Probe.BLOCK_SIZE)["z"] is State.FAULT
    met_last = [replace(each, refused="has other blocks") for each in ranks[:3]]
    found = states(evidence(*met_last, ranks[3]), Probe.BLOCK_SIZE)
    assert [name for name, state in found.items() if state is State.FAULT] == ["z"]


def test_links_below_the_floor_are_named() -> None:
    found = links({"node 0": 0.7e9, "node 1": 0.2e9}, 0.6e9)
    assert [f.fault for f in found] == [None, SilentFault.SLOW_FABRIC]
    assert worst(found) is State.FAULT
    assert bus_bytes_per_s(4, 1_000, 0.5) == pytest.approx(3_000)


def test_every_fault_has_a_cure_and_every_probe_its_verdict() -> None:
    assert set(PROBES) == set(Probe)
    broken = rank("a", reached=False, answer=replace(ANSWER, finish="failed", ids=()))
    for finding in examine(evidence(broken, rank("b", kv_blocks=10), rank("c"))):
        assert (finding.state is State.FAULT) == bool(finding.cure), finding
