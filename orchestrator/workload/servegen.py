"""Reads ServeGen's client files: rates in windows, lengths as distributions over the day."""

import heapq
import json
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.core import SpecError
from orchestrator.workload.workload import Arrivals, Lengths, TraceRequest, Workload

# alibaba/ServeGen, README.md, "Data Structure".
_NAME = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)$")
_PAIR = re.compile(r"(\d+): ([-+.\deE]+)")
_LAYOUT = "give the files chunk-N-trace.csv and chunk-N-dataset.json of one ServeGen model"

Weights = dict[int, float]  # tokens -> weight


@dataclass(frozen=True, slots=True)
class _Client:
    windows: tuple[tuple[float, float], ...]  # start in s, requests/s
    variations: tuple[float, ...]  # of each: standard deviation of the gaps over their mean
    starts_s: tuple[float, ...]  # of the distributions, ascending
    inputs: tuple[Weights, ...]
    outputs: tuple[Weights, ...]


def is_servegen(names: list[str]) -> bool:
    """Whether these are file names of ServeGen's."""
    return any(_NAME.search(name) for name in names)


def read_servegen(files: Mapping[str, str], origin: str) -> Workload:
    """The summary of all clients together, over the day that the files describe.

    Burstiness inside a client's window is not summarised: the gaps' variation is given as Poisson.
    ServeGen has no prefixes, so none is hit.
    """
    clients = _clients(files, origin)
    inputs: Weights = {}
    outputs: Weights = {}
    window_rates: dict[float, float] = {}
    context = 0.0
    for client in clients:
        for start_s, rate in client.windows:
            window_rates[start_s] = window_rates.get(start_s, 0.0) + rate
            at = max(0, bisect_right(client.starts_s, start_s) - 1)
            prompt, output = client.inputs[at], client.outputs[at]
            if rate <= 0 or not prompt or not output:
                continue
            _add(inputs, prompt, rate)
            _add(outputs, output, rate)
            # Lengths are drawn apart from each other.
            context += rate * (_mean(prompt) * _mean(output) + _mean_square(output) / 2)
    rates = list(window_rates.values())
    if not inputs or not outputs or sum(rates) <= 0:
        raise SpecError(f"{origin}: its clients send nothing", _LAYOUT)
    mean_rate = sum(rates) / len(rates)
    steps = sum(tokens * weight for tokens, weight in outputs.items())
    return Workload(
        origin,
        f"ServeGen, {len(clients)} clients in {len(rates)} windows",
        _lengths(inputs),
        _lengths(outputs),
        context / steps,
        0.0,
        Arrivals(mean_rate, max(rates), 1.0),
    )


def servegen_requests(
    files: Mapping[str, str], origin: str, draw: Callable[[str], random.Random]
) -> Iterator[TraceRequest]:
    """The day that the files describe, drawn: each client by itself, in the order of arrival.

    `draw` gives the random stream of a name. Gaps are of a gamma distribution with the window's
    mean and variation, which 1 makes exponential; lengths are drawn apart from each other.
    """
    clients = _clients(files, origin)
    streams = [
        _client_requests(client, draw(f"servegen client {at}")) for at, client in enumerate(clients)
    ]
    return heapq.merge(*streams, key=lambda request: request.at_s)


def _client_requests(client: _Client, chance: random.Random) -> Iterator[TraceRequest]:
    at_s = 0.0
    draws: dict[int, tuple[list[int], list[float], list[int], list[float]]] = {}
    for number, (start_s, rate) in enumerate(client.windows):
        last = number + 1 == len(client.windows)
        end_s = start_s + _LAST_WINDOW_S if last else client.windows[number + 1][0]
        at = max(0, bisect_right(client.starts_s, start_s) - 1)
        if rate <= 0 or not client.inputs[at] or not client.outputs[at]:
            continue
        if at not in draws:
            draws[at] = (*_below(client.inputs[at]), *_below(client.outputs[at]))
        inputs, input_sums, outputs, output_sums = draws[at]
        shape = 1 / max(client.variations[number], _VARIATION_MIN) ** 2
        at_s = start_s + chance.random() / rate
        while at_s < end_s:
            yield TraceRequest(
                at_s,
                max(1, chance.choices(inputs, cum_weights=input_sums)[0]),
                max(1, chance.choices(outputs, cum_weights=output_sums)[0]),
            )
            at_s += chance.gammavariate(shape, 1 / (rate * shape))


_LAST_WINDOW_S = 600.0  # windows are ten minutes long: ServeGen's README
_VARIATION_MIN = 0.05


def _below(weights: Weights) -> tuple[list[int], list[float]]:
    tokens = sorted(weights)
    return tokens, list(accumulate(weights[t] for t in tokens))


def _clients(files: Mapping[str, str], origin: str) -> list[_Client]:
    parts: dict[int, dict[str, str]] = {}
    for name, text in sorted(files.items()):
        if found := _NAME.search(name):
            parts.setdefault(int(found[1]), {})[found[2]] = text
    clients = []
    for number, part in sorted(parts.items()):
        missing = {"trace.csv", "dataset.json"} - set(part)
        if missing:
            raise SpecError(f"{origin}: no chunk-{number}-{min(missing)}", _LAYOUT)
        try:
            clients.append(_client(part["trace.csv"], part["dataset.json"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpecError(f"{origin}: chunk {number} is malformed: {error}", _LAYOUT) from error
    return clients


def _client(trace: str, dataset: str) -> _Client:
    windows, variations = [], []
    for line in trace.split():
        start_s, rate, variation = line.split(",")[:3]
        windows.append((float(start_s), float(rate)))
        variations.append(float(variation or 1.0))
    by_start = sorted((float(start), row) for start, row in json.loads(dataset).items())
    return _Client(
        tuple(windows),
        tuple(variations),
        tuple(start for start, _ in by_start),
        tuple(_weights(row["input_tokens"]) for _, row in by_start),
        tuple(_weights(row["output_tokens"]) for _, row in by_start),
    )


def _weights(text: str) -> Weights:
    """From the text of a Python dict, which is how ServeGen keeps distributions; they sum to 1."""
    weights = {int(tokens): float(weight) for tokens, weight in _PAIR.findall(text)}
    total = sum(weights.values())
    return {tokens: weight / total for tokens, weight in weights.items()} if total > 0 else {}


def _add(into: Weights, weights: Weights, factor: float) -> None:
    for tokens, weight in weights.items():
        into[tokens] = into.get(tokens, 0.0) + weight * factor


def _mean(weights: Weights) -> float:
    return sum(tokens * weight for tokens, weight in weights.items())


def _mean_square(weights: Weights) -> float:
    return sum(tokens * tokens * weight for tokens, weight in weights.items())


def _lengths(weights: Weights) -> Lengths:
    tokens = sorted(weights)
    below = list(accumulate(weights[t] for t in tokens))
    mean = sum(t * weights[t] for t in tokens) / below[-1]
    last = len(tokens) - 1
    p50, p90, p99 = (tokens[min(bisect_left(below, q * below[-1]), last)] for q in (0.5, 0.9, 0.99))
    return Lengths(mean, p50, p90, p99, tokens[-1])
