"""A token bucket: so much a minute, of which a minute's worth can be had at once."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Fills at `rate_s` a second up to `most`, from the instant `at`; `held` is what it held then.

    Whatever is taken with `has` asked before: in any t seconds at most `most + rate_s * t` had been
    taken when the last taking began. The last one may overdraw it, and delays those after.
    """

    rate_s: float
    most: float
    held: float
    at: float

    @classmethod
    def full(cls, per_minute: float, now: float) -> "Bucket":
        """Of so much a minute; it can hold one in any case."""
        most = max(1.0, per_minute)
        return cls(per_minute / 60, most, most, now)

    def level(self, now: float) -> float:
        """What it holds; below 0 if it is overdrawn."""
        return min(self.most, self.held + self.rate_s * max(0.0, now - self.at))

    def has(self, amount: float, now: float) -> bool:
        """Whether so much is there."""
        return self.level(now) >= amount

    def take(self, amount: float, now: float) -> None:
        """Out of it, whether it is there or not; an amount below 0 is put back."""
        self.held = min(self.most, self.level(now) - amount)
        self.at = max(self.at, now)

    def wait_s(self, amount: float, now: float) -> float:
        """How long until so much is there, if nobody else takes it; `amount` <= `most`."""
        return max(0.0, (amount - self.level(now)) / self.rate_s)
