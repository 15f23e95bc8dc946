"""Each alert fires when what it is for happens to a simulated fleet, and none on a healthy one.

What a simulated fleet has not (GPUs, certificates, files of keys) is set through the code that sets
it in production, beside a healthy fleet's series.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pytest

from orchestrator.core import Role
from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance
from orchestrator.sim.faults import Kind, SimFault
from orchestrator.sim.job import GangModel
from orchestrator.sim.pools import SimPool
from orchestrator.sim.story import Linear
from orchestrator.sim.world import Scenario
from orchestrator.spec import (
    AdmissionSpec,
    EngineSpec,
    GatewaySpec,
    ModelSpec,
    PoolScaling,
    PoolSpec,
    ScalingSpec,
    Spec,
    StepCosts,
)
from orchestrator.spec.telemetry import TelemetrySpec
from orchestrator.telemetry import Metric, Metrics, metrics
from orchestrator.telemetry.alerts import ALERTS
from orchestrator.telemetry.gpu import GpuReading, HostReading, set_gpu_ranks, set_gpus
from orchestrator.telemetry.metrics.labels import Clock, Source
from tests.sim.alert_series import SCRAPE_S, Recording, played, promtool_test

MIN = 60.0
COSTS = StepCosts(0.02, 1e-4, step_base_s=0.02, step_request_s=1e-3, stall=1.0)
PASSES = Linear(base_s=0.02, token_s=1e-4, step_s=0.05, request_s=1e-3)
PREFILL = GangModel(Role.PREFILL, 1, PASSES, 40_000, 16, start_s=15.0, transfer_base_s=0.005)
DECODE = replace(PREFILL, role=Role.DECODE, sequences_max=8)
POOLS = (PoolSpec(Role.PREFILL, 1), PoolSpec(Role.DECODE, 2))
SLO = ScalingSpec(2.0, 0.2, (PoolScaling(Role.PREFILL, 1), PoolScaling(Role.DECODE, 2)))
SPEC = Spec(
    models=(ModelSpec("", POOLS),),
    admission=AdmissionSpec(queue_requests_max=400, rank_requests_max=8),
    gateway=GatewaySpec(replicas=1),
    telemetry=TelemetrySpec(gpu_hour_price=2),  # type: ignore[arg-type]  # as good as a Decimal
)
SCENARIO = Scenario(
    pools=(SimPool(PREFILL, 1), SimPool(DECODE, 2)),
    spec=SPEC,
    costs=COSTS,
    measured=True,
    kv_events=True,
)
PER_S = 0.4


def calls(
    until_s: float, per_s: float = PER_S, from_s: float = 0.0, first: int = 0
) -> Iterator[Call]:
    """Prompts that share nothing, each with a short thought."""
    chance = Chance(first + 1)
    arrivals, lengths = chance("arrivals"), chance("lengths")
    at, number = from_s, first
    while (at := at + arrivals.expovariate(per_s)) < until_s:
        output = lengths.randrange(30, 50)
        yield Call(number, at, 300, output, thinking_tokens=output // 2, max_tokens=400)
        number += 1


@dataclass(frozen=True)
class Story:
    """What happens, which alerts must fire, and which others may."""

    scenario: Scenario
    calls: Callable[[], Iterator[Call]]
    fires: Collection[str]
    may: Collection[str] = ()


def at(kind: Kind, at_s: float, lasts_s: float, size: float = 1.0, **more: object) -> SimFault:
    return SimFault(at_s, kind, 0, lasts_s, size, **more)  # type: ignore[arg-type]


# A pool that is scaled has no planned number of ranks: two specs, one with an SLO, one with a plan.
PRICED = tuple(replace(pool, costs=COSTS, node_weights_bytes=1.0) for pool in POOLS)
READS = EngineSpec(storage_bytes_per_s=1e9)
SCALED = replace(SPEC.models[0], pools=PRICED, scaling=SLO, engine=READS)
WITH_SLO = replace(SPEC, models=(SCALED,))
SLOW_MOVES = tuple(SimPool(replace(each, transfer_base_s=70.0), 1) for each in (PREFILL, DECODE))

STORIES = {
    "healthy": Story(SCENARIO, lambda: calls(25 * MIN), ()),
    "healthy with an SLO": Story(replace(SCENARIO, spec=WITH_SLO), lambda: calls(20 * MIN), ()),
    "far more requests than it can take": Story(
        replace(SCENARIO, spec=WITH_SLO, gpus_max=3),
        lambda: chain(calls(5 * MIN), calls(26 * MIN, 6.0, 5 * MIN, 10_000)),
        {"R1SloBurnFast", "R1SloBurnSlow", "R1QueueGrowing"},
        {"R1RankSkew", "R1CostAnomaly"},
    ),
    "transfers fail": Story(
        replace(SCENARIO, faults=(at(Kind.TRANSFER_FAILURE, 5 * MIN, 10 * MIN),)),
        lambda: calls(15 * MIN),
        {"R1TransfersFail", "R1FeatureInactive"},
    ),
    "transfers take a minute": Story(
        replace(SCENARIO, pools=SLOW_MOVES),
        lambda: calls(8 * MIN, 0.05),
        {"R1TransferStuck"},
        {"R1RanksMissing", "R1FeatureInactive"},
    ),
    "the prefill gang is gone for long": Story(
        replace(
            SCENARIO,
            pools=(SimPool(replace(PREFILL, start_s=20 * MIN), 1), SimPool(DECODE, 2)),
            faults=(at(Kind.GANG_DEATH, 4 * MIN, 0.0, role=Role.PREFILL),),
        ),
        lambda: calls(23 * MIN),
        {"R1NoRank", "R1RanksMissing", "R1FeatureInactive"},
    ),
    "few requests on as many GPUs": Story(
        SCENARIO,
        lambda: chain(calls(70 * MIN, 0.2), calls(135 * MIN, 0.02, 70 * MIN, 10_000)),
        {"R1CostAnomaly"},
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", STORIES)
def test_what_happens_to_the_fleet_is_what_alerts_say(name: str, tmp_path: Path) -> None:
    story = STORIES[name]
    recording = played(story.scenario, story.calls())
    assert promtool_test(tmp_path, recording, story.fires, story.may) == ""


# --- what the simulated fleet has not ------------------------------------------------------------

GPU = GpuReading(
    0,
    sm_active=0.8,
    any_kernel=1.0,
    power_w=500.0,
    clock_limits=(),
    ecc_uncorrected=0.0,
)
Step = Callable[[int, Metrics], None]  # sets what holds at a scrape


def gpus(*seen: GpuReading, xids: tuple[tuple[int, int], ...] = ()) -> Step:
    def step(_: int, counted: Metrics) -> None:
        set_gpus(counted, "host", Source.NVML, HostReading(seen, xids))
        ranks = [(gpu.index, "R1", "decode", "gang-1", str(gpu.index)) for gpu in seen]
        set_gpu_ranks(counted, "host", ranks)

    return step


def after(scrapes: int, before: Step, then: Step) -> Step:
    return lambda number, counted: (before if number < scrapes else then)(number, counted)


def unread(_: int, counted: Metrics) -> None:
    set_gpus(counted, "other", Source.NONE, HostReading(()))


def both(*steps: Step) -> Step:
    def step(number: int, counted: Metrics) -> None:
        for each in steps:
            each(number, counted)

    return step


def gauge(metric: Metric, value: float, *labels: str) -> Step:
    return lambda _, counted: counted.set(metric, value, *labels)


def closing(_: int, counted: Metrics) -> None:
    counted.count(metrics.THOUGHTS_CLOSED, 1, "R1")


def missed(_: int, counted: Metrics) -> None:
    counted.count(metrics.PREFILLED, 1000, "R1")
    counted.count(metrics.PREFIX_HITS, 600, "R1", "predicted")
    counted.count(metrics.PREFIX_HITS, 50, "R1", "actual")


def skewed(_: int, counted: Metrics) -> None:
    for rank, requests in enumerate((40, 4, 4, 4)):
        counted.set(metrics.RANK_LOAD, requests, "R1", Role.DECODE, f"gang/{rank}")


HEALTHY = gpus(GPU, GpuReading(1, sm_active=0.75, any_kernel=1.0, power_w=480.0))
OTHER_STORIES: dict[str, tuple[Step, Collection[str]]] = {
    "healthy GPUs and books": (
        both(
            HEALTHY,
            gauge(metrics.CERTIFICATE, 60 * 86_400, "tls.pem"),
            gauge(metrics.KEY_AGE, 86_400),
            gauge(metrics.TARGET_UP, 1, "gateway"),
            gauge(metrics.USAGE_FAULT, 0),
        ),
        (),
    ),
    "an XID error": (
        after(20, HEALTHY, after(21, gpus(GPU, xids=((0, 79),)), HEALTHY)),
        {"R1GpuXid"},
    ),
    "memory errors": (
        after(20, HEALTHY, gpus(GpuReading(0, power_w=1.0, ecc_uncorrected=2.0))),
        {"R1GpuEcc"},
    ),
    "a collective that waits": (
        after(20, HEALTHY, gpus(*(GpuReading(i, sm_active=0.0, any_kernel=1.0) for i in (0, 1)))),
        {"R1GpuHangs"},
    ),
    "one GPU of a gang idles": (
        gpus(GPU, GpuReading(1, sm_active=0.1, any_kernel=1.0, power_w=200.0)),
        {"R1GpuSkew"},
    ),
    "a hot GPU": (
        gpus(GpuReading(0, sm_active=0.8, power_w=400.0, clock_limits=(Clock.THERMAL,))),
        {"R1GpuThrottled"},
    ),
    "a host whose GPUs nobody may read": (both(HEALTHY, unread), {"R1GpuUnread"}),
    "a certificate that expires": (
        gauge(metrics.CERTIFICATE, 86_400, "tls.pem"),
        {"R1CertificateExpires"},
    ),
    "old keys": (gauge(metrics.KEY_AGE, 200 * 86_400), {"R1KeysOld"}),
    "a disk that is full": (gauge(metrics.USAGE_FAULT, 1), {"R1UsageNotKept"}),
    "a process that hangs": (gauge(metrics.TARGET_UP, 0, "gang/0"), {"R1TelemetryMissing"}),
    "budgets that engines ignore": (closing, {"R1ThoughtsNotClosed"}),
    "hits that do not come": (missed, {"R1PrefixHitsMissed"}),
    "caches that are full": (
        gauge(metrics.RANK_KV, 0.97, "R1", Role.DECODE, "gang/0"),
        {"R1KvPressure"},
    ),
    "one rank with most of the requests": (skewed, {"R1RankSkew"}),
    "a silent fault": (gauge(metrics.DOCTOR_FAULT, 1, "R1", "hangs"), {"R1DoctorFault"}),
    "a doctor that makes no round": (
        both(gauge(metrics.DOCTOR_LAST, 0), gauge(metrics.DOCTOR_EVERY, 300)),
        {"R1DoctorSilent"},
    ),
}


@pytest.mark.parametrize("name", OTHER_STORIES)
def test_what_happens_to_hosts_and_books_is_what_alerts_say(name: str, tmp_path: Path) -> None:
    step, fires = OTHER_STORIES[name]
    counted, recording = Metrics(), Recording()
    for number in range(int(25 * MIN / SCRAPE_S)):
        step(number, counted)
        recording.scraped([("", counted.exposition())])
    assert promtool_test(tmp_path, recording, fires) == ""


def test_every_alert_has_a_story_in_which_it_fires() -> None:
    fired = {name for story in STORIES.values() for name in story.fires}
    fired |= {name for _, fires in OTHER_STORIES.values() for name in fires}
    assert fired == {alert.name for alert in ALERTS}
