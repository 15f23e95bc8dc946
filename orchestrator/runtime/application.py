"""The Serve application: the gateway, and a pool per role whose replicas are gangs.

Only what binds them together is here; the options of each are in `serve_config`.
"""

from typing import TypedDict

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from orchestrator.core import Role
from orchestrator.runtime import fleet_watch
from orchestrator.runtime.gang import Gang
from orchestrator.runtime.gateway import Gateway
from orchestrator.runtime.scaling_policy import GATEWAY
from orchestrator.spec import Spec

HEALTH_FAILURES = 5


class Names(TypedDict):
    """What the application is made of: each pool's model and role, by its name, and the failed
    first starts of a pool, or of the gateways, after which they are given up.
    """

    pools: dict[str, tuple[str, str]]
    start_attempts: int


def build(args: Names) -> Application:
    """The application of these pools: what `serve_config` names."""
    pools = {
        name: serve.deployment(
            name=name,
            max_constructor_retry_count=args["start_attempts"],
            request_router_config=RequestRouterConfig(
                request_router_class=f"{fleet_watch.__name__}:{fleet_watch.FleetWatch.__name__}"
            ),
        )(Gang).bind(model, Role(role))
        for name, (model, role) in args["pools"].items()
    }
    gateway = serve.deployment(name=GATEWAY, max_constructor_retry_count=args["start_attempts"])
    return gateway(serve.ingress()(Gateway)).bind(pools)


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
        # What replaces a gang and cannot start is given up, and the old gangs go on serving.
        "RAY_SERVE_STOP_FAILED_ROLLING_UPDATES": "1",
        # A dead gateway is noticed by the next request to it, which goes to another one. Checks
        # are for frozen ones, and patient: on a busy host all gateways may be slow for a moment,
        # and if none counts as alive every request is refused.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "1s",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "10",
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
