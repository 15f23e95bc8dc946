"""Drains what an operator names. All of it wants a driver in the cluster: see `attached`.

with attached(address):
    for gang in gangs(): ...
    drained = drain("DeepSeek-R1-decode-x1y2", forced=False, wait_s=10.0)
    await_gone(drained.gang_ids, limit_s=60.0)
"""

import time
from collections.abc import Sequence

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from orchestrator import fleet
from orchestrator.core import StartError
from orchestrator.runtime.ray_nodes import DrainRefusedError, drain_node
from orchestrator.runtime.scaling_policy import GATEWAY
from orchestrator.runtime.serve_config import APPLICATION

ANSWER_S = 30.0  # that gangs have to say what they are
LOOK_S = 0.5
ATTEMPTS = 10


def gangs() -> list[fleet.Gang]:
    """Every gang that runs, by id; those that start or stop are not asked."""
    found: list[fleet.Gang] = []
    for pool in _pools():
        found += _ask(pool, "status")
    return sorted(found, key=lambda gang: gang.gang_id)


def drain(target: str, *, forced: bool = False, wait_s: float | None = None) -> fleet.Drain:
    """Begins to drain a gang, or all gangs of a node, and returns what is drained.

    What runs may go on for `wait_s` (None: `fleet.drain_wait_s`), then it is moved. Serve starts a
    gang's successor when it is gone; a node's are started elsewhere before, where there is room,
    and Ray puts nothing on the node any more. Raises DrainRefusedError.
    """
    chosen = fleet.choose_drain(gangs(), target, forced=forced)
    if isinstance(chosen, fleet.Refused):
        raise DrainRefusedError(chosen.cause, chosen.cure)
    if chosen.node_id is not None:
        drain_node(chosen.node_id, "drained by an operator")
        return chosen
    for pool in _pools():
        _ask(pool, "drain", chosen.gang_ids, wait_s)
    return chosen


def await_gone(gang_ids: Sequence[str], limit_s: float) -> None:
    """Returns when none of the gangs runs any more; raises StartError after the limit."""
    until = time.monotonic() + limit_s
    while left := {gang.gang_id for gang in gangs()} & set(gang_ids):
        if time.monotonic() > until:
            raise StartError(
                f"after {limit_s:g} s these still drain: {', '.join(sorted(left))}",
                "read the gangs' logs; they end after fleet.drain_s at the latest",
            )
        time.sleep(LOOK_S)


def _pools() -> list[str]:
    try:
        application = serve.status().applications.get(APPLICATION)
    except RayServeException:
        application = None
    if application is None:
        raise StartError(
            "Serve does not run r1-serve in this cluster", "name another with --address"
        )
    return sorted(name for name in application.deployments if name != GATEWAY)


def _ask(pool: str, method: str, *arguments: object) -> list[fleet.Gang]:
    """What the pool's gangs answer; those that are gone meanwhile do not."""
    handle = serve.get_deployment_handle(pool, APPLICATION)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answers: list[fleet.Gang] = handle.broadcast(method, *arguments).results(
                timeout_s=ANSWER_S
            )
        except DeploymentUnavailableError:
            return []  # it has no gang that runs
        except RayError as error:  # one is gone, and Serve has not said so yet
            if attempt == ATTEMPTS:
                raise StartError(
                    f"a gang of {pool} does not answer: {error}",
                    "try again; look at Ray's dashboard",
                ) from error
            time.sleep(LOOK_S)
        else:
            return answers
    raise AssertionError
