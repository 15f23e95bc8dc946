"""A workload given as numbers, `input=4000,output=1000,rate=20`, or numbers that change one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core import SpecError
from orchestrator.workload.workload import Workload, at_rate, constant

KEYS = ("input", "output", "rate", "prefix_hit")
_CURE = "give input=TOKENS,output=TOKENS and perhaps rate=REQUESTS_PER_S and prefix_hit=0..1"


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was given; tokens, requests per second and a fraction."""

    input: float | None = None
    output: float | None = None
    rate: float | None = None
    prefix_hit: float | None = None


def read_numbers(given: Mapping[str, object], origin: str) -> Numbers:
    """The numbers of a mapping whose keys are KEYS; raises SpecError naming the first bad one."""
    values: dict[str, float] = {}
    for key, value in given.items():
        if key not in KEYS:
            raise SpecError(f"{origin}: unknown key {key!r}; the keys are {', '.join(KEYS)}", _CURE)
        number = _number(value)
        if number is None:
            raise SpecError(f"{origin}: {key} is {value!r}, which is no number", _CURE)
        if not math.isfinite(number) or number < 0 or (number == 0 and key != "prefix_hit"):
            raise SpecError(f"{origin}: {key}={number:g} is not positive", _CURE)
        values[key] = number
    if values.get("prefix_hit", 0.0) >= 1:
        raise SpecError(
            f"{origin}: prefix_hit={values['prefix_hit']:g} leaves nothing to prefill",
            "give a fraction below 1, such as 0.5",
        )
    return Numbers(**values)


def split_numbers(text: str) -> tuple[str, dict[str, str]]:
    """The name before the first `key=value` of a comma list, or "", and the pairs."""
    name = ""
    pairs: dict[str, str] = {}
    for at, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            pairs[key.strip()] = value.strip()
        elif at == 0:
            name = part.strip()
        else:
            raise SpecError(f"--workload {text}: {part!r} is no key=value", _CURE)
    return name, pairs


def from_numbers(numbers: Numbers, origin: str) -> Workload:
    """A workload of constant lengths; raises SpecError if a length is missing."""
    if numbers.input is None or numbers.output is None:
        missing = "input" if numbers.input is None else "output"
        raise SpecError(f"{origin}: no {missing}", _CURE)
    return constant(
        "numbers",
        origin,
        input_tokens=numbers.input,
        output_tokens=numbers.output,
        prefix_hit=numbers.prefix_hit or 0.0,
        requests_per_s=numbers.rate,
    )


def changed(workload: Workload, numbers: Numbers, origin: str) -> Workload:
    """The workload with another rate or prefix hit; its lengths belong together and stay."""
    if numbers.input is not None or numbers.output is not None:
        raise SpecError(
            f"{origin}: the lengths of {workload.name} are its own",
            "leave input= and output= out, or leave the name out",
        )
    if numbers.prefix_hit is not None:
        workload = replace(workload, prefix_hit=numbers.prefix_hit)
    if numbers.rate is not None:
        workload = at_rate(workload, numbers.rate)
    return workload


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except ValueError:
        return None
