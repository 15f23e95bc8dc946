"""What is measured of a request on its way: each phase once, of the class that it has."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.admission import Admit, Queue, Reason, Shed
from orchestrator.core import (
    Finish,
    FleetView,
    KvSource,
    RankId,
    Request,
    RequestId,
    Role,
    TokenCounts,
)
from orchestrator.engines import EngineInfo, EngineLoad
from orchestrator.gateway.measures import ITL_STREAMS, Measures, Times
from orchestrator.gateway.pool_measures import PoolMeasures, RankSeen
from orchestrator.gateway.spending import Spending
from orchestrator.handoff import Send
from orchestrator.routing import Choice, Decision, Leg, Question
from orchestrator.routing import Reason as RouteReason
from orchestrator.spec import (
    ModelSpec,
    PoolScaling,
    PoolSpec,
    ScalingSpec,
    Spec,
    StepCosts,
    TelemetrySpec,
    ThinkingSpec,
)
from orchestrator.telemetry import Metrics

POOLS = (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE))
SLO = ScalingSpec(1.0, 0.05, (PoolScaling(Role.PREFILL, 1), PoolScaling(Role.DECODE, 1)))
MODEL = ModelSpec("", POOLS, "DeepSeek-R1", scaling=SLO)
REQUEST = Request(RequestId("r"), 1_000, 100, 10.0, 60.0, klass="gold")
RANK = RankId("gang/0")


def values(counted: Metrics) -> Mapping[str, float]:
    """Every sample but buckets, as its name and the values of its labels."""
    found = {}
    for family in text_string_to_metric_families(counted.exposition().decode()):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                labels = ",".join(v for k, v in sample.labels.items() if k != "model")
                found[f"{sample.name}({labels})"] = sample.value
    return found


def decision(hits: int = 0) -> Decision:
    question = Question(Leg.WHOLE, 1_000, 100, {RANK: hits})
    choice = Choice(RANK, RouteReason.ONLY_RANK)
    return Decision(choice, FleetView((), 0.0), Role.DECODE, question, ())


def send(attempt: int, source: KvSource) -> Send:
    return Send(attempt, RANK, source, None, (), 100)


@pytest.fixture
def counted() -> Metrics:
    return Metrics()


@pytest.fixture
def measures(counted: Metrics) -> Measures:
    return Measures(counted, MODEL)


def test_admission_is_counted_by_decision_and_reason_and_its_wait_is_measured(
    measures: Measures, counted: Metrics
) -> None:
    measures.decided(Queue(REQUEST.request_id, 3, Reason.NO_SLOT), REQUEST, 10.0)
    measures.decided(Admit(REQUEST.request_id, Reason.SLOT_FREE), REQUEST, 12.5)
    measures.decided(Shed(REQUEST.request_id, 5, Reason.QUEUE_FULL), REQUEST, 13.0)
    seen = values(counted)
    assert seen["r1_admission_total(gold,queue,no_slot)"] == 1
    assert seen["r1_admission_total(gold,admit,slot_free)"] == 1
    assert seen["r1_admission_total(gold,shed,queue_full)"] == 1
    assert seen["r1_queue_seconds_sum(gold)"] == 2.5
    assert seen["r1_queue_seconds_count(gold)"] == 1


def test_a_prompt_that_is_moved_has_a_prefill_then_a_transfer(
    measures: Measures, counted: Metrics
) -> None:
    measures.sent(REQUEST, send(1, KvSource.PRODUCE), decision(128), 11.0)
    measures.began(REQUEST, 1, 11.9)
    measures.left(REQUEST, 1, Finish.LENGTH, 64, 12.0)
    measures.sent(REQUEST, send(2, KvSource.TRANSFER), decision(), 12.1)
    measures.look(12.3)
    waiting = values(counted)
    assert waiting["r1_transfers_open()"] == 1
    assert waiting["r1_transfer_oldest_seconds()"] == pytest.approx(0.2)
    measures.began(REQUEST, 2, 12.5)
    measures.began(REQUEST, 2, 12.6)
    measures.left(REQUEST, 2, Finish.STOP, 1_000, 20.0)
    measures.look(20.0)
    seen = values(counted)
    assert seen["r1_prefill_seconds_sum(gold,transfer)"] == pytest.approx(1.0)
    assert seen["r1_transfer_seconds_sum(gold)"] == pytest.approx(0.5)
    assert seen["r1_transfer_seconds_count(gold)"] == 1
    assert seen["r1_transfers_total(moved)"] == 1
    assert seen["r1_transfers_open()"] == 0
    assert seen["r1_prefix_hit_tokens_total(predicted)"] == 128
    assert seen["r1_prefix_hit_tokens_total(actual)"] == 64
    assert seen["r1_prefilled_tokens_total()"] == 1_000


def test_a_prompt_that_is_prefilled_where_it_is_decoded_has_no_transfer(
    measures: Measures, counted: Metrics
) -> None:
    measures.sent(REQUEST, send(1, KvSource.LOCAL), decision(), 11.0)
    measures.began(REQUEST, 1, 11.25)
    measures.left(REQUEST, 1, Finish.STOP, 0, 15.0)
    seen = values(counted)
    assert seen["r1_prefill_seconds_sum(gold,in_place)"] == 0.25
    assert not [name for name in seen if name.startswith("r1_transfer")]


@pytest.mark.parametrize(
    ("began", "finish", "cached", "outcome"),
    [
        (True, Finish.STOP, 999, "moved"),  # the last token is always computed
        (True, Finish.LENGTH, 900, "moved"),  # and its block
        (True, Finish.STOP, 0, "recomputed"),
        (False, Finish.FAILED, 0, "failed"),
        (False, Finish.LOST, 0, "failed"),
        (True, Finish.LOST, 0, None),  # it died in mid-stream, whatever it had begun with
        (True, Finish.ABORTED, 0, None),
    ],
)
def test_a_transfer_is_judged_by_what_the_decode_did_not_compute(
    began: bool, finish: Finish, cached: int, outcome: str | None, counted: Metrics
) -> None:
    measures = Measures(counted, MODEL)
    measures.sent(REQUEST, send(2, KvSource.TRANSFER), decision(), 12.0)
    if began:
        measures.began(REQUEST, 2, 12.5)
    measures.left(REQUEST, 2, finish, cached, 20.0)
    found = [name for name in values(counted) if name.startswith("r1_transfers_total")]
    assert found == ([] if outcome is None else [f"r1_transfers_total({outcome})"])


@pytest.mark.parametrize(
    ("outcome", "first_at", "ended_at", "slo"),
    [
        ("stop", 10.9, 12.0, "kept"),
        ("stop", 11.1, 12.0, "ttft"),
        ("length", 10.9, 16.0, "tpot"),
        ("error_503", 0.0, 12.0, "failed"),
        ("insufficient_system_resource", 10.9, 12.0, "failed"),
        ("error_429", 0.0, 12.0, None),  # the tenant's own limit
        ("cancelled", 10.9, 12.0, None),
        ("stalled", 10.9, 12.0, None),
    ],
)
def test_an_slo_is_kept_or_missed_by_what_the_client_saw(
    outcome: str, first_at: float, ended_at: float, slo: str | None, counted: Metrics
) -> None:
    measures = Measures(counted, MODEL)
    measures.ended("gold", outcome, Times(10.0, first_at), 40, 11, ended_at)
    found = [name for name in values(counted) if name.startswith("r1_slo_requests_total")]
    assert found == ([] if slo is None else [f"r1_slo_requests_total(gold,{slo})"])


def test_a_request_of_one_token_has_no_gap(measures: Measures, counted: Metrics) -> None:
    measures.ended("", "stop", Times(10.0, 10.5), 0, 1, 11.0)
    measures.ended("", "stop", Times(10.0, 10.5), 3, 8, 11.5)
    seen = values(counted)
    assert seen["r1_tpot_seconds_count()"] == 1
    assert seen["r1_tpot_seconds_sum()"] == pytest.approx(0.1)
    assert seen["r1_output_tokens_total(,reasoning)"] == 3
    assert seen["r1_output_tokens_total(,answer)"] == 9


def test_one_stream_in_so_many_is_measured_token_by_token(measures: Measures) -> None:
    measured = [measures.gaps(REQUEST) is not None for _ in range(3 * ITL_STREAMS)]
    assert measured.count(True) == 3


# --- pools ---------------------------------------------------------------------------------------


def rank(role: Role, number: int = 0, running: int = 0, **more: bool) -> RankSeen:
    load = EngineLoad(running, 0, 0.5, 7)
    info = EngineInfo("vllm 0.32.0", "m", 1, 16, 10, grammar=more.get("grammar", True))
    return RankSeen(
        f"{role}-gang/{number}", role, f"{role}-gang", load, info, more.get("fed", True)
    )


def test_time_is_held_by_all_ranks_and_busy_by_those_with_a_request(counted: Metrics) -> None:
    pools = PoolMeasures(counted, Spec((MODEL,)), MODEL, Measures(counted, MODEL))
    ranks = [rank(Role.DECODE, 0, 3), rank(Role.DECODE, 1), rank(Role.PREFILL)]
    for now in (100.0, 100.5, 101.0):
        pools.tick(ranks, now)
    seen = values(counted)
    assert seen["r1_rank_held_seconds_total(decode)"] == pytest.approx(2.0)
    assert seen["r1_rank_busy_seconds_total(decode)"] == pytest.approx(1.0)
    assert seen["r1_rank_held_seconds_total(prefill)"] == pytest.approx(1.0)
    assert seen["r1_rank_busy_seconds_total(prefill)"] == 0


def test_ranks_that_are_gone_have_no_samples(counted: Metrics) -> None:
    pools = PoolMeasures(counted, Spec((MODEL,)), MODEL, Measures(counted, MODEL))
    pools.look([rank(Role.DECODE, 0, 3), rank(Role.DECODE, 1)])
    pools.look([rank(Role.DECODE, 1)])
    seen = values(counted)
    assert [name for name in seen if name.startswith("r1_rank_requests(")] == [
        "r1_rank_requests(decode,decode-gang/1)"
    ]
    assert seen["r1_ranks_open(decode)"] == 1
    assert seen["r1_ranks_open(prefill)"] == 0


def features(spec: Spec, ranks: list[RankSeen], outcomes: tuple[int, ...] = ()) -> set[str]:
    """Features with whether they are on, given transfers with so many cached tokens."""
    counted = Metrics()
    requests = Measures(counted, spec.models[0])
    for attempt, cached in enumerate(outcomes):
        requests.sent(REQUEST, send(attempt, KvSource.TRANSFER), decision(), 0.0)
        requests.left(REQUEST, attempt, Finish.STOP, cached, 1.0)
    PoolMeasures(counted, spec, spec.models[0], requests).look(ranks)
    return {
        f"{name.removeprefix('r1_feature_active')[1:-1]}={value:.0f}"
        for name, value in values(counted).items()
        if name.startswith("r1_feature_active")
    }


BOTH = [rank(Role.PREFILL), rank(Role.DECODE)]


def test_a_feature_that_is_asked_for_and_not_on_is_seen() -> None:
    spec = Spec((MODEL,), thinking=ThinkingSpec(soft_tokens=100))
    assert features(spec, []) == set()
    assert features(spec, BOTH) == {"kv_events=1", "thinking_budget=1"}
    assert "disaggregation=1" in features(spec, BOTH, (1_000, 1_000, 0))
    assert "disaggregation=0" in features(spec, BOTH, (1_000, 0, 0))
    assert "disaggregation=0" in features(spec, [rank(Role.DECODE)])
    deaf = [rank(Role.PREFILL), rank(Role.DECODE, fed=False)]
    assert "kv_events=0" in features(spec, deaf)
    endless = [rank(Role.PREFILL), rank(Role.DECODE, grammar=False)]
    assert "thinking_budget=0" in features(spec, endless)
    assert "thinking_budget=0" not in features(Spec((MODEL,)), endless)


def test_what_the_spec_knows_of_its_gpus_is_told(counted: Metrics) -> None:
    spec = Spec((MODEL,), telemetry=TelemetrySpec(gpu="H200", gpu_hour_price=3))  # type: ignore[arg-type]
    pools = PoolMeasures(counted, spec, MODEL, Measures(counted, MODEL))
    pools.look([rank(Role.DECODE)])
    seen = values(counted)
    assert seen["r1_gpu_hour_price()"] == 3
    assert seen["r1_pool_peak_flops(decode)"] == 1979e12  # one H200 in FP8: hardware.py
    assert seen["r1_pool_peak_bytes_per_second(decode)"] == 4.8e12
    # 37e9 active parameters, two operations each: DeepSeek-V3 technical report.
    assert seen["r1_model_token_flops()"] == pytest.approx(2 * 37e9, rel=0.03)


def test_a_step_is_predicted_where_the_spec_knows_its_costs(counted: Metrics) -> None:
    costs = StepCosts(0.0, 0.0, step_base_s=0.02, step_request_s=0.001)
    model = replace(MODEL, pools=(PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE, costs=costs)))
    pools = PoolMeasures(counted, Spec((model,)), model, Measures(counted, model))
    pools.look([rank(Role.DECODE, 0, 4), rank(Role.DECODE, 1, 6), rank(Role.DECODE, 2)])
    seen = values(counted)
    assert seen["r1_pool_step_predicted_seconds(decode)"] == pytest.approx(0.025)
    assert "r1_pool_step_predicted_seconds(prefill)" not in seen


def test_what_is_charged_is_told_by_class_and_part(counted: Metrics) -> None:
    spending = Spending(counted, Spec((MODEL,)))
    before, used = TokenCounts(100, 50), TokenCounts(100, 50, 30, 20)
    spending.charged(MODEL, "gold", TokenCounts(), before, 3 * 10**12)
    spending.charged(MODEL, "gold", before, used, 10**12)
    seen = values(counted)
    assert seen["r1_paid_tokens_total(gold,input)"] == 100
    assert seen["r1_paid_tokens_total(gold,cached_input)"] == 50
    assert seen["r1_paid_tokens_total(gold,thinking)"] == 30
    assert seen["r1_paid_tokens_total(gold,answer)"] == 20
    assert seen["r1_revenue_total(gold)"] == 4
    assert seen["r1_work_seconds_total(decode,gold,thinking)"] > 0
