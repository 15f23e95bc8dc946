"""The Serve application of a spec: the gateway, and a pool per role whose replicas are gangs."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from orchestrator.core import Role
from orchestrator.placement import node_label, spread
from orchestrator.runtime import fleet_watch
from orchestrator.runtime.gang import DRAIN_MARGIN_S, Gang
from orchestrator.runtime.gateway import Gateway
from orchestrator.runtime.launch import pool_name
from orchestrator.runtime.scaling_policy import GATEWAY
from orchestrator.runtime.serve_config import scaled
from orchestrator.spec import ModelSpec, PoolSpec, Spec, parse_spec

HEALTH_TIMEOUT_S = 30.0
HEALTH_FAILURES = 5
NODE_CPUS = 1.0  # asked of each bundle, for the engine's own host work
REPLICA_CPUS = 0.1  # Serve's actors mostly wait
STATS_S = 5.0  # how often a gateway replica measures what scaling looks at


def application(spec: Spec) -> Application:
    """The application to hand to `serve.run`."""
    pools = {
        pool_name(model, pool.role): _pool(spec, model, pool)
        for model in spec.models
        for pool in model.pools
    }
    ingress = serve.deployment(
        name=GATEWAY,
        **_replicas(spec.gateway.replicas, _fixed(spec)),
        max_ongoing_requests=1_000_000,  # admission is the gateway's own
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        health_check_period_s=spec.fleet.health_period_s,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=spec.gateway.stream_s_max,
    )(serve.ingress()(Gateway))
    return ingress.bind(spec, pools)


def _pool(spec: Spec, model: ModelSpec, pool: PoolSpec) -> Application:
    bundle = {"CPU": NODE_CPUS, "GPU": pool.gang.gpus_per_node}
    group = pool.node_group
    deployment = serve.deployment(
        name=pool_name(model, pool.role),
        **_replicas(pool.replicas, _range(model, pool)),
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        placement_group_bundles=[bundle] * pool.gang.nodes,
        placement_group_strategy=spread(pool.gang),
        placement_group_bundle_label_selector=None if group is None else [dict(node_label(group))],
        health_check_period_s=spec.fleet.health_period_s,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=spec.fleet.drain_s + DRAIN_MARGIN_S,
        max_constructor_retry_count=spec.fleet.start_attempts,
        request_router_config=RequestRouterConfig(
            request_router_class=f"{fleet_watch.__name__}:{fleet_watch.FleetWatch.__name__}"
        ),
    )(Gang)
    return deployment.bind(spec, model.name, Role(pool.role))


def _range(model: ModelSpec, pool: PoolSpec) -> tuple[int, int] | None:
    """The fewest and the most gangs that a pool may ever have, if it is scaled."""
    if model.scaling is None:
        return None
    own = next(each for each in model.scaling.pools if each.role is pool.role)
    return own.gangs_min, own.gangs_max


def _fixed(spec: Spec) -> tuple[int, int] | None:
    """Gateways are not scaled, but Serve collects what replicas measure from scaled ones only."""
    if not scaled(spec):
        return None
    return spec.gateway.replicas, spec.gateway.replicas


def _replicas(count: int, bounds: tuple[int, int] | None) -> dict[str, Any]:
    """How many replicas a deployment has. Dwell is our own: Serve's delays are switched off."""
    if bounds is None:
        return {"num_replicas": count}
    config = AutoscalingConfig(
        min_replicas=bounds[0],
        max_replicas=bounds[1],
        initial_replicas=min(max(count, bounds[0]), bounds[1]),
        metrics_interval_s=STATS_S,
        look_back_period_s=2 * STATS_S,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        downscale_to_zero_delay_s=0.0,
    )
    return {"autoscaling_config": config}


def build(args: dict[str, str]) -> Application:
    """The application of `args["spec"]`, a YAML text: what `serve_config` names."""
    return application(parse_spec(args["spec"], "the application's spec"))


def serve_environment(spec: Spec) -> dict[str, str]:
    """What Serve's controller, proxies and replicas read from the environment when they import.

    It must be set before the first import of Ray in each of them: on the cluster's nodes.
    """
    return {
        # Bytes go from HAProxy to the gateway's own server, not through a Python proxy.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # The gateway's code runs on its server's loop: what it streams goes from the engine's
        # output to the socket in one call.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # Every change of the replica set reloads HAProxy, and the old process with its streams is
        # ended after this time: 120 s by default, less than R1 thinks.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(int(spec.gateway.stream_s_max)),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(int(spec.gateway.stream_s_max)),
        # A dead gateway is noticed by the next request to it and within a second without one.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        # A node that does not answer is given up about when its gang gives it up: Ray asks each
        # second, and these are the failed answers that it bears, each of up to so many ms.
        "RAY_health_check_initial_delay_ms": "5000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": str(
            int(1000 * spec.fleet.cut_off_after_s / HEALTH_FAILURES)
        ),
        "RAY_health_check_failure_threshold": str(HEALTH_FAILURES),
        # Ray 2.60 turns token authentication on unless told otherwise.
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
