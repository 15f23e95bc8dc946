"""Requests drawn from a workload's summary: arrivals, lengths, shared beginnings."""

import math
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

from orchestrator.workload.workload import BLOCK_TOKENS, Lengths, TraceRequest, Workload

PREFIXES = 64  # different beginnings that requests share; the first is the most frequent


class Lottery:
    """Lengths whose quantiles and mean are those of a summary.

    Between two quantiles the logarithm of the length is straight. What that leaves of the mean goes
    into one factor, and no length is above the longest.
    """

    def __init__(self, lengths: Lengths) -> None:
        known = ((0.5, lengths.p50), (0.9, lengths.p90), (0.99, lengths.p99), (1.0, lengths.max))
        least = max(1.0, lengths.p50**2 / max(lengths.p90, 1.0))  # as far below as P90 is above
        self._known = [(0.0, math.log(least))]
        self._known += [(share, math.log(max(tokens, 1.0))) for share, tokens in known]
        self._most = max(1.0, lengths.max)
        samples = [self._at((at + 0.5) / 4000) for at in range(4000)]
        self._scale = lengths.mean / (sum(samples) / len(samples)) if lengths.mean else 1.0

    def draw(self, chance: random.Random) -> int:
        """One length, in tokens, at least 1."""
        return max(1, round(min(self._most, self._scale * self._at(chance.random()))))

    def _at(self, share: float) -> float:
        for (below, low), (above, high) in pairwise(self._known):
            if share <= above:
                return math.exp(low + (high - low) * (share - below) / (above - below))
        return self._most


def drawn_requests(
    workload: Workload, draw: Callable[[str], random.Random], requests_per_s: float | None
) -> Iterator[TraceRequest]:
    """Endless requests; without a rate all are at 0, for closed loops.

    Gaps are of a gamma distribution with the workload's variation. Of each prompt the share
    `prefix_hit` is one of `PREFIXES` beginnings, so that a warm cache that holds them hits as much.
    """
    arrivals, inputs, outputs, prefixes = (
        draw(f"workload {name}") for name in ("arrivals", "inputs", "outputs", "prefixes")
    )
    prompt, output = Lottery(workload.input_tokens), Lottery(workload.output_tokens)
    variation = workload.arrivals.gap_cv if workload.arrivals else 1.0
    shape = 1 / max(variation, 0.05) ** 2
    weights = [1 / (1 + at) for at in range(PREFIXES)]
    at_s, number = 0.0, 0
    while True:
        tokens = prompt.draw(inputs)
        yield TraceRequest(
            at_s,
            tokens,
            output.draw(outputs),
            _hash_ids(number, tokens, workload.prefix_hit, weights, prefixes),
        )
        number += 1
        if requests_per_s is not None:
            at_s += arrivals.gammavariate(shape, 1 / (requests_per_s * shape))


def _hash_ids(
    number: int, tokens: int, hit: float, weights: list[float], chance: random.Random
) -> tuple[int, ...]:
    """Ids of blocks of `BLOCK_TOKENS`: the shared ones, then own ones; none if none is shared."""
    if not hit:
        return ()
    beginning = chance.choices(range(PREFIXES), weights)[0]
    blocks = -(-tokens // BLOCK_TOKENS)
    shared = int(hit * tokens / BLOCK_TOKENS + chance.random())
    shared = min(shared, blocks)
    first = 1 + beginning * _FAR
    own = (PREFIXES + 1 + number) * _FAR
    return (*range(first, first + shared), *range(own, own + blocks - shared))


_FAR = 1 << 20  # more blocks than any prompt has
