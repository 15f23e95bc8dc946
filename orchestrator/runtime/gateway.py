"""The gateway as Serve's ingress: HAProxy sends its bytes straight to this process."""

from collections.abc import Sequence
from pathlib import Path

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.gateway import Member, Service, build_app
from orchestrator.runtime import fleet_feed
from orchestrator.spec import Spec
from orchestrator.telemetry import open_log


class Gateway:
    """One gateway replica: codec, admission, routing, handoff, token channels."""

    def __init__(self, spec: Spec, pools: dict[str, DeploymentHandle]) -> None:
        gateway_id = f"gateway-{serve.get_replica_context().replica_id.unique_id}"
        logs = Path(spec.log_dir)
        self._service = Service(
            spec,
            gateway_id,
            open_log(gateway_id, logs / f"{gateway_id}.log"),
            open_log(gateway_id, logs / f"decisions-{gateway_id}.jsonl"),
        )
        self._tokenizer = Tokenizer.load(Path(spec.model.path))
        # Serve lists a pool's replicas to a handle only once the handle has been used or copied.
        self._handles = [handle.options() for handle in pools.values()]

    def __serve_build_asgi_app__(self) -> Starlette:
        """Serve asks for the application after the constructor."""
        return build_app(self._service, self._tokenizer, on_start=self._listen)

    def check_health(self) -> None:
        """Raises if a background task has died; Serve then replaces the replica."""
        if cause := self._service.supervisor.failure():
            raise RuntimeError(cause)

    def _listen(self) -> None:
        fleet_feed.listen(self._pool_changed)

    def _pool_changed(self, pool: str, members: Sequence[Member]) -> None:
        self._service.update_pool(Role(pool), members)
