"""What the operator asked for: the spec tree and its loader."""

from orchestrator.spec.catalogue import (
    CATALOGUE,
    ModelProfile,
    SamplingPolicy,
    SystemPrompt,
    TemplateKind,
)
from orchestrator.spec.flags import flag_value
from orchestrator.spec.inventory import Inventory, NodeSpec
from orchestrator.spec.load import (
    load_inventory,
    load_spec,
    parse_mapping,
    parse_plan,
    parse_spec,
    read_text,
    spec_tree,
)
from orchestrator.spec.local import LOOPBACK, local_spec, simulated
from orchestrator.spec.names import PUBLISHER, public_names
from orchestrator.spec.scaling import CalendarEntry, Day, PoolScaling, ScalingSpec
from orchestrator.spec.sources import Source, SourceKind, source_of
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
    KvHandoff,
    LocalSpec,
    ModelSpec,
    PoolSpec,
    Spec,
    StreamUsage,
)
from orchestrator.spec.step_costs import StepCosts

__all__ = [
    "CATALOGUE",
    "LOOPBACK",
    "PUBLISHER",
    "AdmissionSpec",
    "ApiProfile",
    "ApiSpec",
    "CalendarEntry",
    "ChannelSpec",
    "Day",
    "Device",
    "EngineKind",
    "EngineSpec",
    "FirstDelta",
    "FleetSpec",
    "GangSpec",
    "GatewaySpec",
    "HandoffSpec",
    "Inventory",
    "KvHandoff",
    "LocalSpec",
    "ModelProfile",
    "ModelSpec",
    "NodeSpec",
    "PoolScaling",
    "PoolSpec",
    "SamplingPolicy",
    "ScalingSpec",
    "Source",
    "SourceKind",
    "Spec",
    "StepCosts",
    "StreamUsage",
    "SystemPrompt",
    "TemplateKind",
    "flag_value",
    "load_inventory",
    "load_spec",
    "local_spec",
    "parse_mapping",
    "parse_plan",
    "parse_spec",
    "public_names",
    "read_text",
    "simulated",
    "source_of",
    "spec_tree",
]
