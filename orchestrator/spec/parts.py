"""What of a spec each part of the fleet depends on; a part is replaced when its own has changed.

Each part is a spec itself, in which all that the part does not read is as by default. How many
replicas there are is in none of them: that changes without replacing any.
"""

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core import Role
from orchestrator.spec.observing import DoctorSpec, TracingSpec, WhySpec
from orchestrator.spec.spec import (
    AdmissionSpec,
    ApiSpec,
    FleetSpec,
    GatewaySpec,
    HandoffSpec,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)
from orchestrator.spec.telemetry import TelemetrySpec


def pool_part(spec: Spec, model: ModelSpec, role: Role) -> Spec:
    """What the gangs of one pool depend on."""
    pools = tuple(_launched(pool, whole=pool.role is role) for pool in model.pools)
    part = replace(model, pools=pools, aliases=None, system_prompt=None, scaling=None)
    return Spec(
        models=(part,),
        channel=spec.channel,
        handoff=HandoffSpec(kv=spec.handoff.kv, fabric=spec.handoff.fabric),
        fleet=spec.fleet,
        log_dir=spec.log_dir,
    )


def _launched(pool: PoolSpec, *, whole: bool) -> PoolSpec:
    """What a command line is made of; of the other pool, what both must have alike."""
    if not whole:
        return PoolSpec(pool.role, args=pool.args)
    return replace(pool, replicas=1, costs=None, node_weights_bytes=None, node_group=None)


def gateway_part(spec: Spec) -> Spec:
    """What gateways depend on, and the scaling policy, which has its spec from them."""
    models = tuple(
        replace(model, pools=tuple(replace(pool, replicas=1) for pool in model.pools))
        for model in spec.models
    )
    return replace(spec, models=models, fleet=FleetSpec())


def scaling_part(spec: Spec) -> Spec:
    """What the scaling policy depends on."""
    models = tuple(
        replace(model, pools=tuple(replace(pool, replicas=1) for pool in model.pools))
        for model in spec.models
        if model.scaling is not None
    )
    return replace(
        spec,
        models=models,
        gateway=GatewaySpec(replicas=spec.gateway.replicas),
        admission=AdmissionSpec(),
        api=ApiSpec(),
        handoff=HandoffSpec(kv=spec.handoff.kv),
        fleet=FleetSpec(),
        doctor=DoctorSpec(),
        why=WhySpec(),
        tracing=TracingSpec(),
        local=LocalSpec(),
        telemetry=TelemetrySpec(),
    )


def fixed_differences(running: Spec, wanted: Spec) -> Iterator[str]:
    """The keys of what cannot be changed while it runs, where the two differ."""
    pairs = {
        "gateway.host": (running.gateway.host, wanted.gateway.host),
        "gateway.port": (running.gateway.port, wanted.gateway.port),
        "gateway.stream_s_max": (running.gateway.stream_s_max, wanted.gateway.stream_s_max),
        "local": (running.local, wanted.local),
        "log_dir": (running.log_dir, wanted.log_dir),
    }
    for key, (before, after) in pairs.items():
        if before != after:
            yield key
