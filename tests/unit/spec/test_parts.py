"""What cannot be changed while it runs, and that parts are specs themselves."""

from dataclasses import replace

from orchestrator.core import Role
from orchestrator.spec import (
    EngineKind,
    GatewaySpec,
    fixed_differences,
    gateway_part,
    local_spec,
    parse_spec,
    pool_part,
    spec_text,
)

SPEC = local_spec(EngineKind.FAKE, 5, "somewhere")


def test_what_was_decided_before_serve_runs_is_named_where_it_differs() -> None:
    moved = replace(
        SPEC,
        gateway=GatewaySpec(host="::", port=9, stream_s_max=1.0),
        local=replace(SPEC.local, gpus_per_node=1),
        log_dir="elsewhere",
    )
    keys = ["gateway.host", "gateway.port", "gateway.stream_s_max", "local", "log_dir"]
    assert list(fixed_differences(SPEC, moved)) == keys
    assert list(fixed_differences(SPEC, replace(SPEC, api=replace(SPEC.api, strict=True)))) == []


def test_a_part_is_a_spec_that_says_the_same_of_what_it_is_for() -> None:
    model = SPEC.models[0]
    part = parse_spec(spec_text(pool_part(SPEC, model, Role.DECODE)))
    known, own = part.models[0].pool(Role.DECODE), model.pool(Role.DECODE)
    assert known is not None
    assert own is not None
    assert (known.gang, known.args, part.fleet) == (own.gang, own.args, SPEC.fleet)
    whole = parse_spec(spec_text(gateway_part(SPEC)))
    assert (whole.gateway, whole.api, whole.local) == (SPEC.gateway, SPEC.api, SPEC.local)
