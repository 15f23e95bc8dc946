"""What Serve's REST API does, from a driver of the cluster: the private part of Serve that we use.

The API itself is the dashboard's, which cannot join a cluster whose nodes are on the loopback.
"""

from typing import Any

from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ServeDeploySchema

from orchestrator.core import StartError


def put_config(config: dict[str, Any]) -> None:
    """Serve, which runs, is to become what the configuration says; returns before it is.

    Raises StartError if it does not take it.
    """
    try:
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))
    except (RayServeException, RayError, ValueError) as error:
        raise StartError(
            f"Serve does not take the configuration: {error}",
            "read the logs of Serve's controller",
        ) from error


def deployed_config(application: str) -> dict[str, Any] | None:
    """What was last put of an application; None: it does not run."""
    try:
        details = _get_global_client().get_serve_details()
    except RayServeException as error:
        raise StartError(f"Serve does not run: {error}", "name another cluster") from error
    found = details["applications"].get(application)
    config: dict[str, Any] | None = None if found is None else found["deployed_app_config"]
    return config
