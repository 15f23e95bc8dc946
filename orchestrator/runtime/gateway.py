"""The gateway as Serve's ingress: HAProxy sends its bytes straight to this process."""

from collections.abc import Sequence
from pathlib import Path

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from uvicorn.protocols.http import auto

from orchestrator.fleet.drill import Disturbance
from orchestrator.gateway import (
    DirectProtocol,
    Member,
    Models,
    Tenants,
    build_app,
    load_tokenizers,
    settle,
)
from orchestrator.runtime import fleet_feed
from orchestrator.runtime.launch import pool_name
from orchestrator.runtime.scaling_policy import stats_of
from orchestrator.runtime.scaling_spec import publish
from orchestrator.runtime.serve_config import scaled
from orchestrator.spec import spec_of_environment
from orchestrator.telemetry import open_log


class Gateway:
    """One gateway replica: codec, admission, routing, handoff, token channels."""

    def __init__(self, pools: dict[str, DeploymentHandle]) -> None:
        spec = spec_of_environment()
        gateway_id = f"gateway-{serve.get_replica_context().replica_id.unique_id}"
        logs = Path(spec.log_dir)
        log = open_log(gateway_id, logs / f"{gateway_id}.log")
        self._models = Models(
            spec,
            gateway_id,
            load_tokenizers(spec),
            log,
            open_log(gateway_id, logs / f"decisions-{gateway_id}.jsonl"),
        )
        self._tenants = Tenants(spec, gateway_id, self._models.metrics, log)
        if scaled(spec):
            publish(spec)
        self._pools = {
            pool_name(model, pool.role): (model.name, pool.role)
            for model in spec.models
            for pool in model.pools
        }
        # Serve lists a pool's replicas to a handle only once the handle has been used or copied.
        self._handles = [handle.options() for handle in pools.values()]

    def __serve_build_asgi_app__(self) -> Starlette:
        """Serve asks for the application after the constructor, and then starts its server."""
        _offer_direct_way()
        app = build_app(self._models, self._tenants, on_start=self._listen)
        settle()
        return app

    def check_health(self) -> None:
        """Raises if a background task has died; Serve then replaces the replica."""
        if cause := self._models.supervisor.failure():
            raise RuntimeError(cause)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What scaling looks at; asked for by Serve if pools are scaled. It would call what is not
        async in a thread, where there is no loop and so no time.
        """
        return stats_of(self._models.observe())

    async def disturb(self, what: str, lasts_s: float) -> int:
        """For drills, on the loop of the requests: see `Models.disturb`."""
        return self._models.disturb(Disturbance(what), lasts_s)

    async def ranks_of(self, session: str) -> list[str]:
        """For drills: see `Models.ranks_of`."""
        return self._models.ranks_of(session)

    def _listen(self) -> None:
        fleet_feed.listen(self._pool_changed)

    def _pool_changed(self, pool: str, members: Sequence[Member]) -> None:
        name, role = self._pools[pool]
        self._models.update_pool(name, role, members)


def _offer_direct_way() -> None:
    """Serve makes uvicorn's server itself and offers no choice of its protocol, so the one that
    uvicorn finds by itself is replaced, in this process only.
    """
    auto.AutoHTTPProtocol = DirectProtocol
