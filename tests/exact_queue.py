"""An exact simulation of engines that give each running request a token a step: what they can take.

Knows nothing of the load test: arrivals in, waiting times out.
"""

import random
from collections.abc import Sequence
from itertools import cycle


def first_token_waits_s(
    arrivals_s: Sequence[float], *, slots: int, steps_s: Sequence[float], tokens: int
) -> list[float]:
    """From each arrival to its first token. At most `slots` run; a step lets those in that wait, in
    order, and ends with a token for each; there is no step while nobody runs. Steps take `steps_s`
    seconds, in turn, round and round.
    """
    waits: list[float] = []
    steps = cycle(steps_s)
    ends: list[int] = []  # of those that run: the tokens that are left
    at, now = 0, 0.0
    while at < len(arrivals_s):
        if not ends:
            now = max(now, arrivals_s[at])
        begin_s = now
        now += next(steps)
        while at < len(arrivals_s) and arrivals_s[at] <= begin_s and len(ends) < slots:
            waits.append(now - arrivals_s[at])
            ends.append(tokens)
            at += 1
        ends = [left - 1 for left in ends if left > 1]
    return waits


def capacity_per_s(
    *,
    slots: int,
    steps_s: Sequence[float],
    tokens: int,
    ttft_s: float,
    share: float,
    requests: int = 800_000,
) -> float:
    """The Poisson load at which just that share has its first token in time, if that is more than
    half of all that the slots can do; by bisection, on the same unit arrivals throughout, so many
    that chance leaves half a percent.
    """
    chance = random.Random("exact")
    unit: list[float] = []
    at = 0.0
    for _ in range(requests):
        at += chance.expovariate(1.0)
        unit.append(at)
    most = slots / tokens * len(steps_s) / sum(steps_s)
    low, high = 0.5 * most, most
    while high - low > 0.002 * most:
        rate = (low + high) / 2
        waits = first_token_waits_s(
            [each / rate for each in unit], slots=slots, steps_s=steps_s, tokens=tokens
        )
        kept = sum(wait_s <= ttft_s for wait_s in waits) / len(waits)
        low, high = (rate, high) if kept >= share else (low, rate)
    return (low + high) / 2
