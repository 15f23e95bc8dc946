"""How fast the fleet works through what was admitted, and so how long who waits will wait."""

import math

_MEMORY_S = 60.0  # after which an end weighs a third


class Drain:
    """Predicted work that ends, a second; what is recent counts most."""

    def __init__(self) -> None:
        self._sum_s = 0.0
        self._began_at: float | None = None
        self._at = 0.0

    def ended(self, work_s: float, now: float) -> None:
        """A request that had been admitted has left."""
        if self._began_at is None:
            self._began_at = self._at = now
        self._sum_s = self._sum_s * math.exp((self._at - now) / _MEMORY_S) + work_s
        self._at = max(self._at, now)

    def wait_s(self, work_s: float, now: float) -> float | None:
        """How long so much work will take to be begun; None: nobody has left yet."""
        if self._began_at is None:
            return None
        since_s = max(1.0, now - self._began_at)
        weight_s = _MEMORY_S * -math.expm1(-since_s / _MEMORY_S)
        rate = self._sum_s * math.exp((self._at - now) / _MEMORY_S) / weight_s
        return work_s / rate if rate > 1e-9 else None
