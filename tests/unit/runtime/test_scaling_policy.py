"""Scaling as Serve's controller calls it, with contexts that have what Serve's have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.core import Role
from orchestrator.runtime.scaling_policy import GATEWAY, ScalingPolicy, stats_of
from orchestrator.scaling import Decision, Observation
from orchestrator.sim.scaling_day import spec_of
from orchestrator.spec import spec_text
from orchestrator.telemetry import Log, open_log

SPEC = spec_of()
MODEL_SPEC = SPEC.models[0]
MODEL = MODEL_SPEC.name
BUSY = Observation(
    requests_per_s=0.5,
    prefill_s=2.0,
    prefill_s2=4.5,
    prompt_tokens=200,
    output_tokens=8_000,
    running=150,
    kv_tokens=2_000_000,
)


@dataclass(frozen=True)
class Id:
    """As Serve's DeploymentID."""

    name: str
    app_name: str = "r1-serve"


@dataclass
class Context:
    """As Serve's AutoscalingContext."""

    current_num_replicas: int
    target_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[str, float]] | None = field(default_factory=dict)


@dataclass
class Controller:
    """Calls the policy and does what it says, as Serve does."""

    log: Log
    now: float = 0.0
    reported: list[tuple[str, Decision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pools = {role: Id(f"{MODEL}-{role}") for role in (Role.PREFILL, Role.DECODE)}
        self.contexts = {Id(GATEWAY): Context(2, 2)} | {
            each: Context(1, 1) for each in self.pools.values()
        }
        self.text: str | None = spec_text(SPEC)
        self.policy = ScalingPolicy(
            lambda: self.text,
            clock=lambda: self.now,
            wall=lambda: self.now,
            log=self.log,
            report=lambda model, decision: self.reported.append((model, decision)),
        )

    def push(self, *seen: Observation) -> None:
        """What gateway replicas have measured."""
        names = stats_of({MODEL: BUSY})
        pushed = [stats_of({MODEL: each}) for each in seen]
        self.contexts[Id(GATEWAY)].aggregated_metrics = {
            name: {f"replica{at}": stats[name] for at, stats in enumerate(pushed)} for name in names
        }

    def call(self) -> dict[Id, int]:
        asked, state = self.policy(self.contexts)
        assert state == {}
        for deployment, replicas in asked.items():
            self.contexts[deployment].target_num_replicas = replicas
        return asked


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Controller]:
    log = open_log("scaling", tmp_path / "scaling.jsonl")
    yield Controller(log)
    log.close()


def test_nothing_is_decided_before_a_gateway_has_measured_anything(it: Controller) -> None:
    assert it.call() == {}
    it.contexts[Id(GATEWAY)].aggregated_metrics = None
    assert it.call() == {}


def test_both_pools_are_decided_on_together_from_all_gateways(it: Controller) -> None:
    half = replace(BUSY, requests_per_s=0.25, running=75)
    it.push(half, half)
    found = it.call()
    assert set(found) == set(it.pools.values())
    assert found[it.pools[Role.DECODE]] >= 6
    assert it.reported[0][1].per_s == BUSY.requests_per_s


def test_the_gateways_own_number_is_left_alone(it: Controller) -> None:
    it.push(BUSY)
    assert Id(GATEWAY) not in it.call()


def test_between_two_periods_the_last_targets_stand(it: Controller) -> None:
    it.push(BUSY)
    first = it.call()
    it.push(replace(BUSY, running=600))
    it.now = 5.0
    assert it.call() == first
    assert len(it.reported) == 1
    it.now = 10.0
    assert it.call()[it.pools[Role.DECODE]] > first[it.pools[Role.DECODE]]


def test_an_application_that_is_being_deployed_is_left_alone(it: Controller) -> None:
    it.push(BUSY)
    del it.contexts[it.pools[Role.DECODE]]
    assert it.call() == {}


def test_gangs_that_do_not_start_in_time_are_taken_to_have_no_nodes(
    it: Controller, tmp_path: Path
) -> None:
    it.push(BUSY)
    assert sum(it.call().values()) > 2
    for _ in range(120):  # 20 minutes, in which no gang starts
        it.now += 10.0
        it.call()
    assert sum(it.call().values()) == 2
    assert "no_nodes" in (tmp_path / "scaling.jsonl").read_text()


def test_each_change_is_a_line_with_its_reason_and_what_was_seen(
    it: Controller, tmp_path: Path
) -> None:
    it.push(BUSY)
    it.call()
    it.now = 10.0
    it.call()
    lines = (tmp_path / "scaling.jsonl").read_text().splitlines()
    assert len(lines) == 2  # one a pool: nothing has changed in the second period
    assert '"reason":"held"' in lines[0] + lines[1] or '"reason":"load"' in lines[0] + lines[1]
    assert '"requests_per_s":0.5' in lines[0]


def test_before_the_spec_is_known_nothing_is_decided(it: Controller) -> None:
    it.push(BUSY)
    it.text = None
    assert it.call() == {}


def test_a_changed_spec_is_taken_up_and_what_was_learned_stays(it: Controller) -> None:
    scaling = MODEL_SPEC.scaling
    assert scaling is not None
    pools = tuple(replace(pool, gangs_max=2) for pool in scaling.pools)
    model = replace(MODEL_SPEC, scaling=replace(scaling, pools=pools))
    it.text = spec_text(replace(SPEC, models=(model,)))
    it.push(BUSY)
    assert max(it.call().values()) <= 2
    it.text = spec_text(SPEC)
    it.now = 1.0  # within the period: a changed spec does not wait for its end
    assert it.call()[it.pools[Role.DECODE]] >= 6
    assert it.reported[-1][1].per_s == BUSY.requests_per_s
