"""How wrong a prediction may be: the P90 of the nearest validated group, or "extrapolated".

The groups are those of `r1-serve accuracy` on the published figures, written by that command.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

import yaml

from orchestrator.perf.architecture import Architecture
from orchestrator.perf.hardware import HARDWARE, Gpu
from orchestrator.perf.layout import EngineFamily

LONG_CONTEXT_TOKENS = 32_768
_FEW = 4  # rows below which a group says nothing about others


class Mode(StrEnum):
    """What was measured."""

    UNIFIED = "unified"
    DISAGGREGATED = "disaggregated"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Band:
    """Nine of ten validated predictions of `group` were off by no more than `p90`, a fraction."""

    p90: float
    group: str
    rows: int


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """No validated group is near: `reason` says what was never measured."""

    reason: str


@dataclass(frozen=True, slots=True)
class Group:
    """The errors of one (hardware, engine, mode, metric) on rows that were not fitted."""

    hardware: str
    engine: str
    mode: str
    metric: str
    rows: int
    p90: float


@cache
def groups() -> tuple[Group, ...]:
    """The validated groups in this package."""
    path = files("orchestrator.perf").joinpath("data/groups.yaml")
    if not path.is_file():
        return ()
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(Group(**row) for row in tree["groups"])


def error_band(
    hardware: Gpu,
    engine: EngineFamily,
    mode: Mode,
    metric: str = "tpot",
    *,
    context_tokens: float = 0.0,
    pipeline_nodes: int = 1,
    model: Architecture | None = None,
) -> Band | Extrapolated:
    """The band of a metric ("tpot", "ttft", "rate", "output_tokens", "input_tokens") of a fleet.

    Nearest is the same hardware, engine and mode; then the worst of the same hardware and mode with
    any engine; then the same of its generation. `pipeline_nodes` are the nodes that the pipeline
    stages of one gang go across.
    """
    if model is not None and model.experts is None:
        return Extrapolated(f"no measurement of {model.name}, only of the 671B models")
    if hardware.never_fitted:
        return Extrapolated(f"{hardware.name} was never fitted")
    if context_tokens > LONG_CONTEXT_TOKENS:
        return Extrapolated(f"context over {LONG_CONTEXT_TOKENS:,} tokens")
    if pipeline_nodes > 1:
        return Extrapolated("pipeline stages across nodes")
    known = [g for g in groups() if g.metric == metric and g.mode == mode and g.rows >= _FEW]
    same = [g for g in known if g.hardware == hardware.name]
    kin = [g for g in known if HARDWARE[g.hardware].generation == hardware.generation]
    for near in (same, kin):
        if found := [g for g in near if g.engine == engine] or near:
            worst = max(found, key=lambda g: g.p90)
            return Band(worst.p90, f"{worst.hardware} {worst.engine} {worst.mode}", worst.rows)
    return Extrapolated(f"no validated measurement of {hardware.name} with {engine}, {mode}")
