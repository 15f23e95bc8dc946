"""The efficiency factors: what a kernel, a link or a host reaches of what the data sheet says.

The shipped ones are the output of `r1-serve fit` on the published figures, in `data/factors.yaml`
with their provenance. A factor is global; where a room of machines differs from the rest (an
engine, a GPU generation, a number format) a multiplier of it says by how much.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files

import yaml

from orchestrator.perf.layout import Array, EngineFamily


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The factors of one (generation, engine, precision): numbers, or arrays of many such."""

    memory: float | Array = 0.75  # of the memory's bandwidth, by kernels that stream weights or KV
    gemm: float | Array = 0.70  # of peak FLOP/s, by large matrix products
    attention: float | Array = 0.35  # of peak FLOP/s, by attention kernels
    expert_tokens: float | Array = (
        64.0  # tokens an expert at which its product is half as efficient
    )
    link: float | Array = 0.52  # of NVLink's bandwidth
    nic: float | Array = 0.9  # of the NICs' bandwidth
    layer_s: float | Array = 52e-6  # a layer's kernels at batch 1: start-up and dependencies
    collective_s: float | Array = 12e-6  # latency of one collective inside an NVLink domain
    cross_s: float | Array = 42e-6  # what crossing nodes adds to it
    step_s: float | Array = 0.9e-3  # host, sampling and what else a decode step has once
    token_bytes: float | Array = 0.5e6  # activations that a layer reads and writes for a token
    pair_bytes: float | Array = 117e3  # the same for a (token, expert) pair
    spread: float | Array = 0.6  # standard deviation over mean of the experts' popularity
    prefill_layer_s: float | Array = 570e-6  # least time of a prefill layer, without CUDA graphs
    overlap: float | Array = 0.62  # of the shorter of computing and communicating, what hides
    stall: float | Array = 0.6  # of a prefill's time, what decodes on the same GPUs wait
    first_token_s: float | Array = 0.12  # of TTFT, what is neither queue nor prefill


NAMES = tuple(each.name for each in fields(Efficiency))


@dataclass(frozen=True, slots=True)
class Factors:
    """Global values and their multipliers, `multipliers[name][engine, generation or format]`."""

    values: Mapping[str, float] = field(
        default_factory=lambda: {name: getattr(Efficiency(), name) for name in NAMES}
    )
    multipliers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, generation: str, engine: EngineFamily, experts: str) -> Efficiency:
        """The factors of one kind of machine; `experts` is the format of the expert weights."""
        out = dict(self.values)
        for name, by_kind in self.multipliers.items():
            for kind in (engine.value, generation, experts):
                out[name] *= by_kind.get(kind, 1.0)
        return Efficiency(**out)


@cache
def shipped_factors() -> Factors:
    """The factors in this package."""
    text = files("orchestrator.perf").joinpath("data/factors.yaml").read_text(encoding="utf-8")
    return read_factors(text)


def read_factors(text: str) -> Factors:
    """Factors from the YAML that `fit` wrote."""
    tree = yaml.safe_load(text)
    return Factors(tree["values"], tree["multipliers"])
