"""The configuration that Serve's REST API and a RayService take: the application by name, and each
deployment with its options.

What a deployment's replicas read of the spec is their environment. An environment that changes is
another version of that deployment, so Serve replaces its replicas, and no others: a new limit of
the API does not load 671B weights again. Counts of replicas change in place.
"""

from collections.abc import Collection
from typing import Any

from orchestrator.placement import node_label, spread
from orchestrator.runtime.launch import pool_name
from orchestrator.runtime.scaling_policy import GATEWAY, ScalingPolicy
from orchestrator.spec import (
    SPEC_VARIABLE,
    ModelSpec,
    PoolSpec,
    Spec,
    gateway_part,
    pool_part,
    spec_text,
)

APPLICATION = "r1-serve"
_BUILDER = "orchestrator.runtime.application:build"  # imported by Serve: it brings Ray along
HEALTH_TIMEOUT_S = 30.0
DRAIN_MARGIN_S = 60.0  # that Serve waits longer for a drain than the drain takes at most
NODE_CPUS = 1.0  # asked of each bundle, for the engine's own host work
REPLICA_CPUS = 0.1  # Serve's actors mostly wait
STATS_S = 5.0  # how often a gateway replica measures what scaling looks at
ONE_AT_A_TIME = 0.001  # of a pool's gangs that are replaced at once; Serve takes at least one
SURGE_PERCENT = 1  # the same for those that are there beside: rounded up to one


def scaled(spec: Spec) -> bool:
    """Whether any of its models is."""
    return any(model.scaling is not None for model in spec.models)


def serve_config(spec: Spec, surge: Collection[str] = ()) -> dict[str, Any]:
    """The configuration of the spec. A policy for a whole application can be given no other way.

    `surge` names the pools that have room for one gang more: those start the new gang of an upgrade
    before an old one drains, the others let one go first.
    """
    pools = {
        pool_name(model, pool.role): (model, pool) for model in spec.models for pool in model.pools
    }
    found: dict[str, Any] = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": _BUILDER,
        "args": {
            "pools": {name: [model.name, pool.role.value] for name, (model, pool) in pools.items()},
            "start_attempts": spec.fleet.start_attempts,
        },
        "deployments": [
            _gateway(spec),
            *(
                _pool(spec, name, model, pool, surge=name in surge)
                for name, (model, pool) in pools.items()
            ),
        ],
    }
    if scaled(spec):
        found["autoscaling_policy"] = {
            "policy_function": f"{ScalingPolicy.__module__}:{ScalingPolicy.__name__}"
        }
    return {"applications": [found]}


def gateway_spec(config: dict[str, Any]) -> str | None:
    """The spec that the gateways of a configuration read, in YAML."""
    for application in config.get("applications", ()):
        for deployment in application.get("deployments", ()):
            if deployment["name"] == GATEWAY:
                text: str = deployment["ray_actor_options"]["runtime_env"]["env_vars"][
                    SPEC_VARIABLE
                ]
                return text
    return None


def _gateway(spec: Spec) -> dict[str, Any]:
    # Gateways are not scaled, but Serve collects what replicas measure from scaled ones only.
    count = spec.gateway.replicas
    return {
        "name": GATEWAY,
        **_replicas(count, (count, count) if scaled(spec) else None),
        "max_ongoing_requests": 1_000_000,  # admission is the gateway's own
        "ray_actor_options": _actor(gateway_part(spec)),
        "health_check_period_s": spec.fleet.health_period_s,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": spec.gateway.stream_s_max,
        "max_surge_percent": 100,  # they need no GPU
    }


def _pool(
    spec: Spec, name: str, model: ModelSpec, pool: PoolSpec, *, surge: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        **_replicas(pool.replicas, _range(model, pool)),
        "ray_actor_options": _actor(pool_part(spec, model, pool.role)),
        "placement_group_bundles": [{"CPU": NODE_CPUS, "GPU": float(pool.gang.gpus_per_node)}]
        * pool.gang.nodes,
        "placement_group_strategy": spread(pool.gang),
        "health_check_period_s": spec.fleet.health_period_s,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": spec.fleet.drain_s + DRAIN_MARGIN_S,
        "rolling_update_percentage": ONE_AT_A_TIME,
        "max_surge_percent": SURGE_PERCENT if surge else 0,
    }
    if pool.node_group is not None:
        found["placement_group_bundle_label_selector"] = [dict(node_label(pool.node_group))]
    return found


def _range(model: ModelSpec, pool: PoolSpec) -> tuple[int, int] | None:
    """The fewest and the most gangs that a pool may ever have, if it is scaled."""
    if model.scaling is None:
        return None
    own = next(each for each in model.scaling.pools if each.role is pool.role)
    return own.gangs_min, own.gangs_max


def _replicas(count: int, bounds: tuple[int, int] | None) -> dict[str, Any]:
    """How many replicas a deployment has. Dwell is our own: Serve's delays are switched off."""
    if bounds is None:
        return {"num_replicas": count}
    config = {
        "min_replicas": bounds[0],
        "max_replicas": bounds[1],
        "initial_replicas": min(max(count, bounds[0]), bounds[1]),
        "metrics_interval_s": STATS_S,
        "look_back_period_s": 2 * STATS_S,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
    }
    return {"autoscaling_config": config}


def _actor(part: Spec) -> dict[str, Any]:
    return {
        "num_cpus": REPLICA_CPUS,
        "runtime_env": {"env_vars": {SPEC_VARIABLE: spec_text(part)}},
    }
