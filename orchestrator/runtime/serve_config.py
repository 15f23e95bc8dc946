"""The configuration that Serve's REST API and a RayService take: the application by name."""

from typing import Any

import yaml

from orchestrator.runtime.scaling_policy import ScalingPolicy
from orchestrator.spec import Spec, spec_tree

APPLICATION = "r1-serve"
_BUILDER = "orchestrator.runtime.application:build"  # imported by Serve: it brings Ray along


def scaled(spec: Spec) -> bool:
    """Whether any of its models is."""
    return any(model.scaling is not None for model in spec.models)


def serve_config(spec: Spec) -> dict[str, Any]:
    """The configuration that Serve's REST API and a RayService take. A policy for a whole
    application can be given no other way.
    """
    text = yaml.safe_dump(dict(spec_tree(spec)), sort_keys=False)
    found: dict[str, Any] = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": _BUILDER,
        "args": {"spec": text},
    }
    if scaled(spec):
        found["autoscaling_policy"] = {
            "policy_function": f"{ScalingPolicy.__module__}:{ScalingPolicy.__name__}",
            "policy_kwargs": {"spec": text},
        }
    return {"applications": [found]}
