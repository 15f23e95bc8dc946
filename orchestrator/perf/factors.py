"""The efficiency factors: what a kernel, a link or a host reaches of what the data sheet says.

The shipped ones are the output of `r1-serve fit` on the published figures, in `data/factors.yaml`
with their provenance. A factor is global; where one kind of machine differs from the rest (an
engine, a GPU generation, a format of the experts) a multiplier says by how much.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

import yaml

from orchestrator.core import SpecError
from orchestrator.perf.layout import Array, EngineFamily


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The factors of one (generation, engine, format): numbers, or arrays of many such."""

    memory: float | Array  # of the memory's bandwidth, by kernels that stream weights or KV
    expert_memory: float | Array  # the same by the experts' grouped products
    gemm: float | Array  # of peak FLOP/s, by large matrix products
    attention: float | Array  # the same by attention kernels of prefill
    latent: float | Array  # the same by attention kernels of decode
    expert_tokens: float | Array  # tokens of an expert at which its product is half as efficient
    link: float | Array  # of NVLink's bandwidth, by exchanges among DP ranks
    reduce: float | Array  # the same by all-reduces; the switch adds, so it may pass 1
    nic: float | Array  # of the NICs' bandwidth
    layer_s: float | Array  # kernels of a decode layer at batch 1: start-up, dependencies
    collective_s: float | Array  # latency of an all-reduce inside an NVLink domain
    exchange_s: float | Array  # of a dispatch or combine among eight ranks, with its packing
    cross_s: float | Array  # what crossing nodes adds to either
    step_s: float | Array  # host, sampling and what else a decode step has once
    activations: float | Array  # times the bytes that small kernels must move for a token
    pairs: float | Array  # the same for a (token, expert) pair
    spread: float | Array  # standard deviation over mean of the experts' popularity
    rebalanced: float | Array  # of that spread, what stays where the engine rebalances
    prefill_layer_s: float | Array  # least time of a prefill layer, without CUDA graphs
    overlap: float | Array  # of the shorter of computing and communicating, what hides
    stall: float | Array  # times a prompt's work, by which it delays decodes on the same GPUs
    bunch: float | Array  # of a closed loop's prompts, those that wait before one in prefill
    pace: float | Array  # times all of a step's time; 1, and an engine's multiplier of it
    first_token_s: float | Array  # of TTFT, what is neither queue nor prefill


NAMES = tuple(each.name for each in fields(Efficiency))


@dataclass(frozen=True, slots=True)
class Factors:
    """Global values and their multipliers, `multipliers[name][engine, generation or format]`."""

    values: Mapping[str, float]
    multipliers: Mapping[str, Mapping[str, float]]

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
    """Factors from the YAML that `r1-serve fit` wrote."""
    cure = "give a file that `r1-serve fit` wrote"
    try:
        tree = yaml.safe_load(text)
        values = {str(name): float(value) for name, value in tree["values"].items()}
        multipliers = {
            str(name): {str(kind): float(value) for kind, value in by_kind.items()}
            for name, by_kind in tree["multipliers"].items()
        }
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"no factors file: {error}", cure) from error
    if missing := set(NAMES) ^ values.keys():
        raise SpecError(f"no factors file of this version: {', '.join(sorted(missing))}", cure)
    if unknown := multipliers.keys() - values.keys():
        raise SpecError(f"multipliers of no factor: {', '.join(sorted(unknown))}", cure)
    if bad := [name for name, value in values.items() if not value > 0]:
        raise SpecError(f"{', '.join(bad)} not above 0", cure)
    return Factors(values, multipliers)
