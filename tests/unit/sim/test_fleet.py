"""Policies on a small trace of our own: many sessions that grow turn by turn."""

import random
from collections import Counter

import pytest

from orchestrator.sim import (
    LOAD_ONLY,
    POLICIES,
    EngineModel,
    EventPath,
    HitAt,
    Load,
    Ours,
    Scores,
    play,
    scores,
)
from orchestrator.workload import TraceRequest

MODEL = EngineModel(blocks=400)
RANKS = 4
LOAD = Load(input_scale=0.25, output_scale=1.0)


def sessions(seed: int, requests: int = 200, gap_s: float = 0.06) -> list[TraceRequest]:
    chance = random.Random(seed)
    made: list[TraceRequest] = []
    histories: list[list[int]] = []
    at_s = 0.0
    new = iter(range(1, 1 << 30))
    for _ in range(requests):
        at_s += chance.expovariate(1 / gap_s)
        if histories and chance.random() < 0.7:
            history = chance.choice(histories[-20:])
        else:
            history = [0]  # all begin alike
            histories.append(history)
        history.extend(next(new) for _ in range(chance.randint(1, 12)))
        made.append(TraceRequest(at_s, len(history) * 512, chance.randint(1, 30), tuple(history)))
    return made


def run(
    policy: str,
    path: EventPath | None = None,
    model: EngineModel = MODEL,
    load: Load = LOAD,
) -> Scores:
    make = POLICIES[policy]
    played = play(sessions(3), load, model, RANKS, lambda engines: make(engines, 0), path)
    assert len(played.jobs) == 200
    assert all(job.ended_at >= job.first_at > job.arrived_at for job in played.jobs)
    return scores(played)


@pytest.mark.parametrize("hit_at", HitAt)
def test_knowing_the_prefixes_is_worth_more_than_any_policy_by_load(hit_at: HitAt) -> None:
    model = EngineModel(blocks=400, hit_at=hit_at)
    kv = run("kv", model=model)
    oracle = run("oracle", model=model)
    assert kv.ttft_s_mean <= 1.1 * oracle.ttft_s_mean
    for policy in LOAD_ONLY:
        assert kv.ttft_s_mean < run(policy, model=model).ttft_s_mean


def test_late_and_lost_events_cost_little() -> None:
    exact = run("kv").ttft_s_mean
    for path in (EventPath(delay_s=0.5), EventPath(loss=0.05), EventPath(0.5, 0.05, seed=1)):
        assert run("kv", path).ttft_s_mean < 1.15 * exact


def test_lost_events_are_replayed_until_the_index_is_the_engines_own() -> None:
    played = play(
        sessions(5),
        LOAD,
        MODEL,
        RANKS,
        lambda engines: Ours(engines, events=True),
        EventPath(delay_s=0.01, loss=0.3, seed=2),
    )
    assert isinstance(played.policy, Ours)
    for stream in played.policy.streams:
        assert stream.counts.gaps > 0
        assert stream.counts.lost == 0


def test_a_first_block_that_all_share_does_not_collapse_the_fleet() -> None:
    busy = Load(rate=3.0, input_scale=0.25, output_scale=1.0)
    for policy in ("kv", "approx"):
        assert run(policy, load=busy).busiest < 1.3


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_run(policy: str) -> None:
    assert run(policy) == run(policy)


def test_requests_are_neither_lost_nor_doubled() -> None:
    played = play(sessions(9), LOAD, MODEL, RANKS, lambda engines: Ours(engines, events=True), None)
    assert Counter(job.number for job in played.jobs) == Counter(range(200))
    assert isinstance(played.policy, Ours)
    ledger = played.policy.router.ledger
    for rank_id in played.policy.rank_ids:
        view = ledger.view(rank_id)
        assert (view.in_flight_requests, view.in_flight_tokens) == (0, 0)
