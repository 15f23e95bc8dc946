"""What the telemetry process of a host says: its GPUs, its certificates, whom it reads.

What a GPU does not say, or nobody may read, has no sample: never 0.
"""

from orchestrator.telemetry.metrics import labels as of
from orchestrator.telemetry.metrics.metric import Kind, Label, Metric, Unit

_GPU = (of.NODE, of.GPU, of.SOURCE)


def _gauge(name: str, unit: Unit, help_: str, *more: Label) -> Metric:
    return Metric(f"r1_gpu_{name}", Kind.GAUGE, help_, (*_GPU, *more), unit=unit)


def _count(name: str, help_: str, *more: Label, unit: Unit = Unit.NONE) -> Metric:
    return Metric(f"r1_gpu_{name}_total", Kind.COUNTER, help_, (*_GPU, *more), unit=unit)


GPU_TELEMETRY = Metric(
    "r1_gpu_telemetry",
    Kind.GAUGE,
    "1, with who reads the GPUs of the host; `none` means not available, whatever they do.",
    (of.NODE, of.SOURCE),
)
GPU_RANK = Metric(
    "r1_gpu_rank",
    Kind.GAUGE,
    "1, with the rank that has the GPU.",
    (of.NODE, of.GPU, of.MODEL, of.ROLE, of.GANG, of.RANK),
)
SM_ACTIVE = _gauge("sm_active_ratio", Unit.RATIO, "Share of time and SMs with a warp on them.")
TENSOR_ACTIVE = _gauge("tensor_active_ratio", Unit.RATIO, "Share in which tensor cores worked.")
DRAM_ACTIVE = _gauge("dram_active_ratio", Unit.RATIO, "Share of the memory's bandwidth in use.")
ANY_KERNEL = _gauge(
    "any_kernel_ratio",
    Unit.RATIO,
    "Share of time with any kernel, which nvidia-smi calls utilisation: a hang has 1.",
)
SM_CLOCK = _gauge("sm_clock_hertz", Unit.HERTZ, "Clock of the SMs.")
CLOCK_LIMITED = _gauge("clock_limited", Unit.NONE, "1 while that holds the clocks down.", of.CLOCK)
POWER = _gauge("power_watts", Unit.WATTS, "Power drawn.")
POWER_LIMIT = _gauge("power_limit_watts", Unit.WATTS, "Power that it may draw.")
ENERGY = _count("energy_joules", "Energy drawn since the driver was loaded.", unit=Unit.JOULES)
TEMPERATURE = _gauge("temperature_celsius", Unit.CELSIUS, "Of the chip.")
MEMORY_USED = _gauge("memory_used_bytes", Unit.BYTES, "Memory in use.")
MEMORY = _gauge("memory_bytes", Unit.BYTES, "Memory that there is.")
NVLINK = _gauge("nvlink_bytes_per_second", Unit.BYTES_PER_SECOND, "Over all NVLinks.", of.DIRECTION)
PCIE = _gauge("pcie_bytes_per_second", Unit.BYTES_PER_SECOND, "Over PCIe.", of.DIRECTION)
PCIE_REPLAYS = _count("pcie_replays", "Packets that PCIe had to send again.")
ECC = _count("ecc_errors", "Errors of its memory since the driver was loaded.", of.ECC)
XID = _count("xid_errors", "XID errors since this process began.", of.XID)

TARGET_UP = Metric(
    "r1_target_up",
    Kind.GAUGE,
    "1 if a process of this host that has metrics gave them at the last scrape, 0 if not.",
    (of.PROCESS,),
)
CERTIFICATE = Metric(
    "r1_certificate_expiry_seconds",
    Kind.GAUGE,
    "Until a certificate that is watched expires; below 0 it has.",
    (of.CERTIFICATE,),
    unit=Unit.SECONDS,
)

HOST_METRICS = (
    *(GPU_TELEMETRY, GPU_RANK, SM_ACTIVE, TENSOR_ACTIVE, DRAM_ACTIVE, ANY_KERNEL),
    *(SM_CLOCK, CLOCK_LIMITED, POWER, POWER_LIMIT, ENERGY, TEMPERATURE, MEMORY_USED, MEMORY),
    *(NVLINK, PCIE, PCIE_REPLAYS, ECC, XID, TARGET_UP, CERTIFICATE),
)
