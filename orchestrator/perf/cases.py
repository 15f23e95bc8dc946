"""Published measurements as cases that the model can predict."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.perf.bands import LONG_CONTEXT_TOKENS, Mode
from orchestrator.perf.hardware import HARDWARE, Gpu
from orchestrator.perf.layout import EngineFamily, Layout
from orchestrator.perf.precision import Precision
from orchestrator.spec import Fabric

Row = Mapping[str, Any]  # one row as YAML has it; nothing of it goes past the readers unread

CHUNK_TOKENS = 8192  # a rank's prefill chunk where a row says nothing: vLLM's and SGLang's usual


class NoPredictionError(Exception):
    """The reason why a row has no prediction."""


@dataclass(frozen=True, slots=True)
class Side:
    """One pool of a measured fleet."""

    layout: Layout
    gangs: float


@dataclass(frozen=True, slots=True)
class Case:
    """One row, ready to be predicted; lengths in tokens, `measured` in the model's own units."""

    id: str
    use: str  # "calibrate", "validate" or "context"
    clean: bool
    mode: Mode
    gpu: Gpu
    engine: EngineFamily
    precision: Precision
    fabric: Fabric
    prefill: Side | None  # of a disaggregated fleet
    side: Side  # decode, or the only one
    input_tokens: float
    output_tokens: float
    concurrency: float  # of the fleet; of a rank in mode DECODE; 0 in mode PREFILL
    accept_tokens: float | None
    balance: float  # 0 perfectly balanced experts, 1 left to chance, else rebalanced by the engine
    measured: Mapping[str, float]
    max_throughput: bool = False  # requests all at once: an in-flight-batched maximum
    requests: int = 0  # of the whole run; 0: not stated
    random_lengths: bool = False  # uniform between 0.8 and 1.0 of the nominal ones
    tail_tokens: int = 0  # lengths of a data set, of which the row has the means: the longest
    prefix_hit: float = 0.0  # share of the input that is cached where it is computed
    source: str = ""  # the row's own name of where it comes from
    extrapolated: str = ""
    notes: tuple[str, ...] = ()
    rival: Mapping[str, float] = field(default_factory=dict)  # another planner's prediction


@dataclass(frozen=True, slots=True)
class Unpredictable:
    """A row that no prediction can be made for."""

    id: str
    use: str
    reason: str


def cases_of(rows: Sequence[Case | Unpredictable]) -> Iterator[Case]:
    """The rows that can be predicted."""
    return (row for row in rows if isinstance(row, Case))


def gpu_of(name: str) -> Gpu:
    """The GPU that a row names, perhaps with its memory or form after it."""
    found = [HARDWARE[word] for word in re.split(r"[\s/_-]+", name.upper()) if word in HARDWARE]
    if len(found) != 1:
        raise NoPredictionError(f"unknown GPU {name!r}; known are {', '.join(HARDWARE)}")
    return found[0]


def number(row: Row, key: str) -> float:
    """A number, 0 or more, that the format asks for."""
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{key} is {value!r}, not a number")
    return float(value)


def add_rate(measured: dict[str, float], concurrency: float, output_tokens: float) -> None:
    """By Little's law: the requests in the system over the time that each is there."""
    stay = measured["ttft"] + (output_tokens - 1) * measured["tpot"]
    measured["rate"] = concurrency / stay


def extrapolated(gpu: Gpu, context: float, side: Side, prefill: Side | None) -> str:
    """Why the case is outside what was fitted, or ""."""
    if gpu.never_fitted:
        return f"{gpu.name} was never fitted"
    if context > LONG_CONTEXT_TOKENS:
        return f"context over {LONG_CONTEXT_TOKENS:,} tokens"
    if any(each.layout.pp > 1 for each in (side, prefill) if each):
        return "pipeline stages"
    return ""
