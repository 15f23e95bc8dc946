"""What one look at a host's GPUs gives, whoever looks; and how it becomes metrics.

A field that is None was not available: the GPU has it not, or nobody may read it. It has no sample
then, for 0 would be a measurement.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from orchestrator.telemetry import metrics
from orchestrator.telemetry.metrics.labels import Clock, Direction, Source
from orchestrator.telemetry.registry import Metrics


class GpuReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One GPU at one moment. Activities are of the time since the look before."""

    index: int
    sm_active: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    any_kernel: float | None = None
    sm_clock_hz: float | None = None
    clock_limits: tuple[Clock, ...] | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    memory_used_bytes: float | None = None
    memory_bytes: float | None = None
    nvlink_sent: float | None = None  # bytes a second
    nvlink_received: float | None = None
    pcie_sent: float | None = None
    pcie_received: float | None = None
    pcie_replays: float | None = None
    ecc_corrected: float | None = None
    ecc_uncorrected: float | None = None


class HostReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """All GPUs of a host at one moment, and the XID errors since the look before: index, number."""

    gpus: tuple[GpuReading, ...]
    xids: tuple[tuple[int, int], ...] = ()


class GpuReader(Protocol):
    """Reads a host's GPUs. Never raises; what goes wrong is what is not available."""

    @property
    def source(self) -> Source:
        """Who reads, as it is now."""
        ...

    @property
    def cause(self) -> str:
        """For `NONE`: why nobody can, in a sentence."""
        ...

    def read(self) -> HostReading:
        """Looks, which may take some milliseconds for each GPU."""
        ...


class NoGpus:
    """Nobody can read, or nobody is to."""

    source = Source.NONE

    def __init__(self, cause: str) -> None:
        self.cause = cause

    def read(self) -> HostReading:
        """Nothing."""
        return HostReading(())


_FIELDS = (
    (metrics.SM_ACTIVE, "sm_active", ()),
    (metrics.TENSOR_ACTIVE, "tensor_active", ()),
    (metrics.DRAM_ACTIVE, "dram_active", ()),
    (metrics.ANY_KERNEL, "any_kernel", ()),
    (metrics.SM_CLOCK, "sm_clock_hz", ()),
    (metrics.POWER, "power_w", ()),
    (metrics.POWER_LIMIT, "power_limit_w", ()),
    (metrics.ENERGY, "energy_j", ()),
    (metrics.TEMPERATURE, "temperature_c", ()),
    (metrics.MEMORY_USED, "memory_used_bytes", ()),
    (metrics.MEMORY, "memory_bytes", ()),
    (metrics.NVLINK, "nvlink_sent", (Direction.SENT,)),
    (metrics.NVLINK, "nvlink_received", (Direction.RECEIVED,)),
    (metrics.PCIE, "pcie_sent", (Direction.SENT,)),
    (metrics.PCIE, "pcie_received", (Direction.RECEIVED,)),
    (metrics.PCIE_REPLAYS, "pcie_replays", ()),
    (metrics.ECC, "ecc_corrected", ("corrected",)),
    (metrics.ECC, "ecc_uncorrected", ("uncorrected",)),
)


def set_gpus(counted: Metrics, node: str, source: Source, seen: HostReading) -> None:
    """The samples of this reading instead of those of the one before; XID errors add up."""
    counted.forget(metrics.GPU_TELEMETRY, node)
    counted.set(metrics.GPU_TELEMETRY, 1, node, source)
    for metric in {metric for metric, _, _ in _FIELDS} | {metrics.CLOCK_LIMITED}:
        counted.forget(metric, node)
    for gpu in seen.gpus:
        _set_gpu(counted, (node, str(gpu.index), source), gpu)
    for index, xid in seen.xids:
        counted.count(metrics.XID, 1, node, str(index), source, str(xid))


def _set_gpu(counted: Metrics, where: tuple[str, str, str], gpu: GpuReading) -> None:
    for metric, field, labels in _FIELDS:
        value = getattr(gpu, field)
        if value is not None:
            counted.set(metric, value, *where, *labels)
    if gpu.clock_limits is not None:
        for reason in Clock:
            counted.set(metrics.CLOCK_LIMITED, reason in gpu.clock_limits, *where, reason)


def set_gpu_ranks(
    counted: Metrics, node: str, ranks: Sequence[tuple[int, str, str, str, str]]
) -> None:
    """Which rank has which GPU: index, model, role, gang, rank."""
    counted.forget(metrics.GPU_RANK, node)
    for index, model, role, gang, rank in ranks:
        counted.set(metrics.GPU_RANK, 1, node, str(index), model, role, gang, rank)
