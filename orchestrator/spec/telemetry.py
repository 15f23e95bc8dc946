"""What telemetry has to be told: what the GPUs are and cost, where it is asked."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class TelemetrySpec:
    """Of all pools. What is None is not known, and figures that need it are not shown."""

    port: int = 9402  # of each host's telemetry process: its GPUs, engines and gateways together
    gpu: str | None = None  # of the catalogue of hardware, to compare what is done with what can be
    gpu_hour_price: Decimal | None = None  # in the currency of `usage`
    certificates: tuple[str, ...] = ()  # files in PEM whose expiry is watched
