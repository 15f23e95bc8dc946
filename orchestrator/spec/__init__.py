"""What the operator asked for: the spec tree and its loader."""

from orchestrator.spec.catalogue import (
    CATALOGUE,
    ModelProfile,
    SamplingPolicy,
    SystemPrompt,
    TemplateKind,
)
from orchestrator.spec.load import load_spec, parse_spec
from orchestrator.spec.local import LOOPBACK, local_spec
from orchestrator.spec.names import PUBLISHER, public_names
from orchestrator.spec.spec import (
    AdmissionSpec,
    ApiProfile,
    ApiSpec,
    ChannelSpec,
    Device,
    EngineKind,
    EngineSpec,
    FirstDelta,
    FleetSpec,
    GangSpec,
    GatewaySpec,
    HandoffSpec,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
    StreamUsage,
)

__all__ = [
    "CATALOGUE",
    "LOOPBACK",
    "PUBLISHER",
    "AdmissionSpec",
    "ApiProfile",
    "ApiSpec",
    "ChannelSpec",
    "Device",
    "EngineKind",
    "EngineSpec",
    "FirstDelta",
    "FleetSpec",
    "GangSpec",
    "GatewaySpec",
    "HandoffSpec",
    "LocalSpec",
    "ModelProfile",
    "ModelSpec",
    "PoolSpec",
    "SamplingPolicy",
    "Spec",
    "StreamUsage",
    "SystemPrompt",
    "TemplateKind",
    "load_spec",
    "local_spec",
    "parse_spec",
    "public_names",
]
