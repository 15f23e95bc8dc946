"""Days of load for policies of scaling: how the rate goes, and the requests that it brings."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.sim.call import Call
from orchestrator.sim.chance import Chance

DAY_S = 86_400.0
PROMPT_TOKENS = 200.0  # few, and slow in `scaling_day`: it is the seconds that count
OUTPUT_TOKENS = 8_000.0  # a long thought

SINE = tuple(math.sin(math.pi * at / 48) ** 2 for at in range(49))
# People at work: two humps, a dent at noon, quiet at night. Hour by hour, drawn by hand.
OFFICE = (
    *(0.10, 0.04, 0.0, 0.0, 0.02, 0.06, 0.16, 0.38, 0.68, 0.90, 1.0, 0.96),
    *(0.74, 0.82, 0.95, 0.93, 0.84, 0.66, 0.48, 0.40, 0.37, 0.32, 0.24, 0.16, 0.10),
)
# Requests a second of all clients in windows of ten minutes: alibaba/ServeGen,
# data/reason/deepseek-r1, the sums of its chunk-*-trace.csv (Apache-2.0).
SERVEGEN = (
    *(14.9, 18.4, 20.1, 20.6, 20.6, 21.3, 21.5, 21.9, 21.8, 21.9, 22.0, 24.4),
    *(32.1, 33.2, 33.0, 32.3, 32.7, 32.1, 31.6, 29.6, 28.6, 29.4, 29.7, 22.9),
    *(16.7, 17.1, 16.9, 16.8, 17.1, 17.6, 17.3, 16.9, 11.8, 14.4, 13.1, 13.8),
    *(13.8, 14.4, 9.5, 11.3, 11.9, 11.1, 9.1, 10.5, 9.2, 9.6, 8.5, 8.6),
    *(10.1, 10.2, 7.8, 10.9, 8.3, 10.0, 5.1, 11.6, 12.7, 10.8, 13.2, 10.5),
    *(13.8, 11.0, 12.6, 15.1, 10.5, 14.8, 16.3, 10.3, 14.9, 11.1, 13.4, 13.7),
    *(10.4, 11.7, 5.9, 5.9, 4.3, 4.8, 4.7, 5.1, 9.4, 10.2, 10.7, 12.2),
    *(11.5, 10.8, 11.6, 10.9, 10.6, 10.3, 9.5, 9.1, 8.8, 11.6, 12.4, 16.4),
    *(15.8, 16.7, 18.5, 16.0, 9.2, 8.2, 9.0, 8.1, 9.9, 8.9, 7.6, 9.6),
    *(10.7, 13.9, 11.8, 11.4, 11.7, 12.4, 10.3, 9.2, 8.4, 9.9, 8.9, 9.7),
    *(17.2, 24.5, 19.9, 20.1, 20.4, 17.1, 20.1, 20.0, 18.0, 32.5, 33.3, 32.0),
    *(36.3, 42.5, 41.3, 35.6, 32.7, 22.3, 22.6, 16.1, 12.0, 13.4, 25.6, 23.7),
)


@dataclass(frozen=True, slots=True)
class Day:
    """A rate that goes straight from each of `levels` to the next, all equally far apart: at the
    least of them `least` requests a second, at the greatest `most`.
    """

    most: float = 0.75
    least: float = 0.11
    lasts_s: float = DAY_S
    seed: int = 0
    levels: tuple[float, ...] = SINE

    def per_s(self, at: float) -> float:
        """The rate at an instant; before the day and behind it, that of its ends."""
        place = min(max(at / self.lasts_s, 0.0), 1.0) * (len(self.levels) - 1)
        left = min(int(place), len(self.levels) - 2)
        low, high = self.levels[left], self.levels[left + 1]
        level = low + (high - low) * (place - left)
        bottom, top = min(self.levels), max(self.levels)
        return self.least + (self.most - self.least) * (level - bottom) / (top - bottom)

    def calls(self, rate: Callable[[float], float] | None = None) -> Iterator[Call]:
        """Independent arrivals at `rate`, which is at most `most`; lengths vary by half."""
        rate = rate or self.per_s
        chance = Chance(self.seed)
        arrivals, lengths = chance("day arrivals"), chance("day lengths")
        at, number = 0.0, 0
        while True:
            at += arrivals.expovariate(self.most)
            if at >= self.lasts_s:
                return
            if arrivals.random() * self.most >= rate(at):
                continue
            prompt, output = (
                max(1, int(lengths.gammavariate(4.0, mean / 4.0)))
                for mean in (PROMPT_TOKENS, OUTPUT_TOKENS)
            )
            yield Call(number, at, prompt, output, max_tokens=max(32_768, output))
            number += 1


DAYS = {
    "sine": Day(),
    "office": Day(levels=OFFICE),
    "servegen": Day(levels=SERVEGEN),
}
