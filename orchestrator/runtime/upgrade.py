"""Applies a changed spec to what runs: gangs and gateways are replaced without cutting a stream.

with attached(address):
    upgrade(spec, say=print)
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray._private.state import available_resources_per_node
from ray.serve.schema import ApplicationStatus, DeploymentStatus

from orchestrator.core import SpecError, StartError
from orchestrator.fleet import FreeNode, surges
from orchestrator.placement import NODE_GROUP
from orchestrator.runtime.launch import pool_name
from orchestrator.runtime.scaling_policy import GATEWAY
from orchestrator.runtime.serve_api import deployed_config, put_config
from orchestrator.runtime.serve_config import APPLICATION, gateway_spec, serve_config
from orchestrator.runtime.simulated import check_files, check_layout
from orchestrator.spec import Spec, fixed_differences, parse_spec

LOOK_S = 0.5
SEEN_S = 3.0  # until Serve's status is of the configuration that it was given


def upgrade(spec: Spec, *, say: Callable[[str], None], limit_s: float = 7_200.0) -> None:
    """Returns when all that runs is as the spec says, but for old gateways that let streams end.

    Raises SpecError before anything is done if the spec cannot be applied, and StartError if what
    it asks for does not start: then what ran before is in force again.
    """
    before = _running_config()
    spec = _as_started(spec, before)
    check_files(spec)
    check_layout(spec)
    pools = {pool_name(m, pool.role): pool for m in spec.models for pool in m.pools}
    surge = surges(pools, _free_nodes())
    for name in sorted(pools):
        way = "a new gang first" if name in surge else "no room for one more: one gang at a time"
        say(f"{name}: {way}")
    put_config(serve_config(spec, surge))
    try:
        _await_running(say, limit_s)
    except StartError as error:
        put_config({"applications": [before]})
        raise StartError(f"{error.cause}; what ran before is in force again", error.cure) from error


def _running_config() -> dict[str, Any]:
    found = deployed_config(APPLICATION)
    if found is None:
        raise StartError("Serve does not run r1-serve there", "start it with `r1-serve up`")
    return found


def _as_started(spec: Spec, before: dict[str, Any]) -> Spec:
    """The spec with what flags of `up` decide as they decided it. Raises SpecError if it differs in
    anything else that cannot be changed.
    """
    text = gateway_spec({"applications": [before]})
    assert text is not None
    running = parse_spec(text, "the running spec")
    spec = replace(
        spec,
        gateway=replace(spec.gateway, port=running.gateway.port),
        local=replace(spec.local, nodes=running.local.nodes),
        log_dir=running.log_dir,
    )
    if fixed := list(fixed_differences(running, spec)):
        raise SpecError(
            f"{', '.join(fixed)} cannot be changed while it runs",
            "leave them as they are, or end `r1-serve up` and start it with the new spec",
        )
    return spec


def _free_nodes() -> list[FreeNode]:
    free = available_resources_per_node()
    return [
        FreeNode(
            int(free.get(node["NodeID"], {}).get("GPU", 0)),
            frozenset(
                key.removeprefix(NODE_GROUP)
                for key in node.get("Labels", {})
                if key.startswith(NODE_GROUP)
            ),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _await_running(say: Callable[[str], None], limit_s: float) -> None:
    time.sleep(SEEN_S)
    until = time.monotonic() + limit_s
    told = ""
    while True:
        status = serve.status().applications[APPLICATION]
        line = "; ".join(
            f"{name} {_states(deployment.replica_states)}"
            for name, deployment in sorted(status.deployments.items())
        )
        if line != told:
            say(line)
            told = line
        failed = [
            deployment.message
            for deployment in status.deployments.values()
            if deployment.status is DeploymentStatus.DEPLOY_FAILED
        ]
        if failed or status.status is ApplicationStatus.DEPLOY_FAILED:
            raise _cause_of("\n".join(failed) or status.message)
        if status.status is ApplicationStatus.RUNNING and all(
            _done(name, deployment.replica_states)
            for name, deployment in status.deployments.items()
        ):
            return
        if time.monotonic() > until:
            raise StartError(
                f"the upgrade has not ended after {limit_s:g} s: {line}", "read the gangs' logs"
            )
        time.sleep(LOOK_S)


def _done(name: str, states: Mapping[str, int]) -> bool:
    """Whether a deployment is as it is to be. Old gateways may end streams for hours yet."""
    left = {state for state, count in states.items() if count}
    return left <= ({"RUNNING", "STOPPING"} if name == GATEWAY else {"RUNNING"})


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()) if count)


def _cause_of(text: str) -> StartError:
    found = re.findall(r"EngineStartError: (.*?)(?: \[(.*)\])?$", text, re.MULTILINE)
    if found:
        cause, cure = found[-1]
        return StartError(cause, cure or "read the gangs' logs")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return StartError(lines[-1] if lines else "Serve gives no cause", "read the gangs' logs")
