"""What Serve is given, and what of it a change of the spec changes: that is what is replaced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core import Role
from orchestrator.runtime.serve_config import gateway_spec, serve_config
from orchestrator.sim.scaling_day import spec_of
from orchestrator.spec import SPEC_VARIABLE, ApiSpec, FleetSpec, ModelSpec, Spec, parse_spec

SCALED = spec_of()
SPEC = replace(SCALED, models=(replace(SCALED.models[0], scaling=None),))
MODEL = SPEC.models[0].name
GATEWAY, PREFILL, DECODE = "gateway", f"{MODEL}-prefill", f"{MODEL}-decode"


def versions(spec: Spec) -> dict[str, object]:
    """What Serve makes a version of: of each deployment, and of all of them."""
    [application] = serve_config(spec)["applications"]
    found: dict[str, object] = {
        each["name"]: {
            key: each[key]
            for key in (
                "ray_actor_options",
                "placement_group_bundles",
                "placement_group_strategy",
                "placement_group_bundle_label_selector",
            )
            if key in each
        }
        for each in application["deployments"]
    }
    keys = ("import_path", "args", "autoscaling_policy")
    return found | {"all": {key: application.get(key) for key in keys}}


def replaced(before: Spec, after: Spec) -> set[str]:
    """The deployments whose replicas a change replaces."""
    old, new = versions(before), versions(after)
    return {name for name in old if old[name] != new[name]}


def with_model(change: Callable[[ModelSpec], ModelSpec], spec: Spec = SPEC) -> Spec:
    return replace(spec, models=(change(spec.models[0]),))


def more_decode(model: ModelSpec) -> ModelSpec:
    pools = tuple(
        replace(pool, replicas=7) if pool.role is Role.DECODE else pool for pool in model.pools
    )
    return replace(model, pools=pools)


def other_flag(model: ModelSpec) -> ModelSpec:
    return replace(model, engine=replace(model.engine, args=("--max-num-seqs", "9")))


def test_more_replicas_replace_nothing() -> None:
    assert replaced(SPEC, with_model(more_decode)) == set()
    deployments = serve_config(with_model(more_decode))["applications"][0]["deployments"]
    assert next(each for each in deployments if each["name"] == DECODE)["num_replicas"] == 7


def test_a_rule_of_the_api_replaces_gateways_and_no_gang() -> None:
    assert replaced(SPEC, replace(SPEC, api=ApiSpec(strict=True))) == {GATEWAY}


def test_a_flag_of_the_engine_replaces_gangs_and_the_gateways_that_know_of_it() -> None:
    assert replaced(SPEC, with_model(other_flag)) == {GATEWAY, PREFILL, DECODE}


def test_limits_of_the_fleet_replace_gangs_only() -> None:
    assert replaced(SPEC, replace(SPEC, fleet=FleetSpec(drain_wait_s=1.0))) == {PREFILL, DECODE}


def test_each_replica_can_read_its_part() -> None:
    for each in serve_config(SCALED)["applications"][0]["deployments"]:
        text = each["ray_actor_options"]["runtime_env"]["env_vars"][SPEC_VARIABLE]
        assert parse_spec(text).models[0].name == MODEL


def test_the_gateways_part_tells_what_runs() -> None:
    text = gateway_spec(serve_config(SPEC))
    assert text is not None
    assert parse_spec(text).gateway == SPEC.gateway
    assert gateway_spec({"applications": []}) is None


def test_what_scaling_predicts_with_replaces_gateways_only() -> None:
    scaling = SCALED.models[0].scaling
    assert scaling is not None
    changed = with_model(lambda model: replace(model, scaling=replace(scaling, ttft_s=9.0)), SCALED)
    assert replaced(SCALED, changed) == {GATEWAY}


def test_only_pools_with_room_surge() -> None:
    [application] = serve_config(SPEC, {DECODE})["applications"]
    surge = {each["name"]: each["max_surge_percent"] for each in application["deployments"]}
    assert surge == {GATEWAY: 100, PREFILL: 0, DECODE: 1}


@pytest.mark.filterwarnings("ignore")  # Ray's own, when it is imported
def test_serve_takes_the_configuration() -> None:
    from ray.serve.schema import ServeDeploySchema  # seconds to import

    parsed = ServeDeploySchema.model_validate(serve_config(SCALED))
    policy: dict[str, Any] | None = parsed.applications[0].autoscaling_policy
    assert policy is not None
    assert policy["policy_function"] == "orchestrator.runtime.scaling_policy:ScalingPolicy"


def test_a_spec_without_scaling_has_no_policy() -> None:
    assert "autoscaling_policy" not in serve_config(SPEC)["applications"][0]
