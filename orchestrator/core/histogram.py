"""Quantiles of many values in little memory."""

import math
from dataclasses import dataclass, field

_WIDTH = math.log(1.01)  # of a bucket: quantiles are right to half a percent
_LEAST = 1e-6


@dataclass(slots=True)
class Histogram:
    """Counts by size, which add up over parts. `mean` is exact.

    `buckets` are counts by the number of the bucket, the same in every histogram.
    """

    count: int = 0
    total: float = 0.0
    most: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, value: float, times: int = 1) -> None:
        """One more value, 0 or above."""
        self.count += times
        self.total += value * times
        if value > self.most:
            self.most = value
        at = int(math.log(value) // _WIDTH) if value > _LEAST else _FIRST
        self.buckets[at] = self.buckets.get(at, 0) + times

    def merge(self, other: "Histogram") -> None:
        """Adds the values of `other`, which stays as it is."""
        self.count += other.count
        self.total += other.total
        self.most = max(self.most, other.most)
        for at, times in other.buckets.items():
            self.buckets[at] = self.buckets.get(at, 0) + times

    @property
    def mean(self) -> float:
        """0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The value that `share` of all do not exceed; 0 of nothing."""
        left = share * self.count
        for at in sorted(self.buckets):
            left -= self.buckets[at]
            if left <= 0:
                return 0.0 if at == _FIRST else min(math.exp((at + 0.5) * _WIDTH), self.most)
        return self.most


_FIRST = int(math.log(_LEAST) // _WIDTH)
