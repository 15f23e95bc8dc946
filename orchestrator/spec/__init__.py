"""What the operator asked for: the spec tree and its loader."""

from orchestrator.spec.load import load_spec, parse_spec
from orchestrator.spec.local import LOOPBACK, local_spec
from orchestrator.spec.spec import (
    AdmissionSpec,
    ChannelSpec,
    Device,
    EngineKind,
    EngineSpec,
    FleetSpec,
    GangSpec,
    GatewaySpec,
    HandoffSpec,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)

__all__ = [
    "LOOPBACK",
    "AdmissionSpec",
    "ChannelSpec",
    "Device",
    "EngineKind",
    "EngineSpec",
    "FleetSpec",
    "GangSpec",
    "GatewaySpec",
    "HandoffSpec",
    "LocalSpec",
    "ModelSpec",
    "PoolSpec",
    "Spec",
    "load_spec",
    "local_spec",
    "parse_spec",
]
