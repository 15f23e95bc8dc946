"""Hosts scaling in Serve's controller, as the application-level autoscaling policy.

Serve calls it synchronously some ten times a second with a context for each deployment, so nothing
here waits: gateways push what they measure (`record_autoscaling_stats`), and between two periods
the last targets stand. Serve pickles this module by value and may load it anew with every
configuration: whatever is remembered is on the policy itself.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

from orchestrator import scaling
from orchestrator.core import Role
from orchestrator.runtime.launch import pool_name
from orchestrator.scaling import Decision, Gangs, Observation, Plan, Seen, State
from orchestrator.spec import Spec, parse_spec
from orchestrator.telemetry import Log, Metric, metrics, open_log

GATEWAY = "gateway"  # the deployment whose replicas push what they measure
_LATE = 1.5  # times the predicted start, after which a gang is taken to have found no nodes
_LATE_S = 60.0  # and so much more: predictions of short starts are rough
_MONDAY_S = 4 * 86_400.0  # the first Monday of the epoch, in seconds of it
_WEEK_S = 7 * 86_400.0


class Deployment(Protocol):
    """Serve's id of a deployment."""

    name: str


class Context(Protocol):
    """What is used of Serve's `AutoscalingContext`."""

    current_num_replicas: int
    target_num_replicas: int

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """By name and replica."""
        ...


Contexts = Mapping[Any, Context]  # by Deployment
Report = Callable[[str, Decision], None]  # the model, and what was decided


def stats_of(seen: Mapping[str, Observation]) -> dict[str, float]:
    """What a gateway replica pushes of its models; Serve takes numbers only."""
    return {
        f"{model}.{name}": float(value)
        for model, observed in seen.items()
        for name, value in asdict(observed).items()
    }


class ScalingPolicy:
    """Decides for all pools of all models that are scaled."""

    def __init__(
        self,
        read: Callable[[], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        log: Log | None = None,
        report: Report | None = None,
    ) -> None:
        """`read` gives the spec, in YAML, as it is now, or None before it is known; it must not
        wait.
        """
        self._clock, self._wall = clock, wall
        self._read = read or _published()
        self._log = log
        self._report = report or _ray_metrics()
        self._text: str | None = None
        self._models: list[_Model] = []

    def __call__(self, contexts: Contexts) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """The replicas of each pool of which something is known."""
        self._follow()
        by_name = {deployment.name: deployment for deployment in contexts}
        now = self._clock()
        week_s = (self._wall() - _MONDAY_S) % _WEEK_S
        replicas: dict[Any, int] = {}
        for model in self._models:
            if any(name not in by_name for name in (GATEWAY, *model.pools.values())):
                continue  # the application is being deployed
            decision = model.decide(contexts, by_name, now, week_s)
            if decision is not None:
                self._tell(model, decision)
            for role, gangs in model.targets.items():
                replicas[by_name[model.pools[role]]] = gangs
        return replicas, {}

    def _follow(self) -> None:
        """Takes up a spec that has changed; what was learned of a model stays."""
        text = self._read()
        if text is None or text == self._text:
            return
        self._text = text
        spec = parse_spec(text, "the spec of the scaling policy")
        self._log = self._log or _open_log(spec)
        before = {model.name: model for model in self._models}
        self._models = [
            _Model(spec, model.name, before.get(model.name))
            for model in spec.models
            if model.scaling
        ]

    def _tell(self, model: "_Model", decision: Decision) -> None:
        assert self._log is not None
        self._report(model.name, decision)
        for target in decision.targets:
            if target.gangs != model.before.get(target.role):
                self._log.info(
                    "scaling",
                    model=model.name,
                    role=target.role,
                    decision=target.gangs,
                    reason=target.reason,
                    needed=target.needed,
                    requests_per_s=round(decision.per_s, 4),
                    slo_kept=decision.slo_kept,
                    seen=asdict(model.seen) if model.seen is not None else None,
                )
        model.before = dict(model.targets)


class _Model:
    """One model's memory."""

    def __init__(self, spec: Spec, name: str, before: "_Model | None" = None) -> None:
        model = spec.model(name)
        self.name = name
        self.plan: Plan = scaling.plan_of(spec, model)
        self.pools = {pool.role: pool_name(model, pool.role) for pool in model.pools}
        self.targets: dict[Role, int] = {} if before is None else dict(before.targets)
        self.before: dict[Role, int] = {}
        self.seen: Seen | None = None
        self._state: State = State() if before is None else before._state
        self._asked_at: dict[Role, list[float]] = {role: [] for role in self.pools}
        self._due = 0.0

    def decide(
        self, contexts: Contexts, by_name: Mapping[str, Any], now: float, week_s: float
    ) -> Decision | None:
        """A decision if one is due and gateways have said anything."""
        pools = {
            role: self._gangs(role, contexts[by_name[name]], now)
            for role, name in self.pools.items()
        }
        load = self._load(contexts[by_name[GATEWAY]])
        if now < self._due or load is None:
            return None
        self._due = now + self.plan.spec.period_s
        self.seen = Seen(load, pools, week_s)
        decision, self._state = scaling.decide(self.plan, self._state, self.seen, now)
        self.targets = decision.gangs()
        return decision

    def _load(self, gateway: Context) -> Observation | None:
        metrics = gateway.aggregated_metrics or {}
        named = {each.name: metrics.get(f"{self.name}.{each.name}", {}) for each in _FIELDS}
        replicas = sorted({replica for values in named.values() for replica in values}, key=str)
        if not replicas:
            return None
        return scaling.together(
            [
                Observation(**{name: values.get(each, 0.0) for name, values in named.items()})
                for each in replicas
            ]
        )

    def _gangs(self, role: Role, context: Context, now: float) -> Gangs:
        """Serve does not say which of those that do not run wait for nodes; time does."""
        asked_at = self._asked_at[role]
        missing = max(0, context.target_num_replicas - context.current_num_replicas)
        asked_at += [now] * (missing - len(asked_at))
        del asked_at[: len(asked_at) - missing]
        late_s = _LATE * self.plan.pools[role].start_s + _LATE_S
        pending = sum(1 for at in asked_at if now > at + late_s)
        ready = min(context.current_num_replicas, context.target_num_replicas)
        return Gangs(ready, missing - pending, pending)


_FIELDS = fields(Observation)


def _open_log(spec: Spec) -> Log:
    return open_log("scaling", Path(spec.log_dir) / "decisions-scaling.jsonl")


def _published() -> Callable[[], str | None]:
    from orchestrator.runtime.scaling_spec import Latest  # only in the controller

    return Latest()


def _ray_metrics() -> Report:
    from ray.util.metrics import Counter, Gauge  # only in the controller

    def tags(metric: Metric) -> tuple[str, ...]:
        return tuple(label.name for label in metric.labels)

    gangs, needed = (
        Gauge(metric.name, metric.help, tags(metric))
        for metric in (metrics.SCALING_TARGET, metrics.SCALING_NEEDED)
    )
    made = metrics.SCALING_DECISIONS
    reasons = Counter(made.name.removesuffix("_total"), made.help, tags(made))  # Ray adds it

    def report(model: str, decision: Decision) -> None:
        for target in decision.targets:
            of = {"model": model, "role": target.role.value}
            gangs.set(target.gangs, of)
            needed.set(target.needed, of)
            reasons.inc(1.0, of | {"reason": target.reason.value})

    return report
