"""The GPUs that r1-serve knows: memory, arithmetic, links. One line, one number, its source.

Rates are per GPU, in bytes and FLOPs a second; links count one direction; FLOPs are dense. Sheets
give doubled numbers for sparse arithmetic and for both directions of a link; they are halved here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU in its usual node."""

    name: str
    memory_bytes: int  # as the driver reports it
    bandwidth: float  # of its memory
    bf16_flops: float
    fp8_flops: float
    fp4_flops: float | None  # None: not in hardware
    gpus_per_node: int
    domain_gpus: int  # joined by NVLink or Infinity Fabric
    link_bandwidth: float  # of that link
    nic_bandwidth: float  # of its share of the node's NICs
    price_per_hour: float | None = None  # US dollars; None: no public price with a source
    never_fitted: bool = False  # no measurement of it or of its kind is in the fit

    @property
    def generation(self) -> str:
        """The family whose factors it shares."""
        if self.name.startswith("MI"):
            return "cdna"
        return "blackwell" if self.fp4_flops else "hopper"


# H100 SXM data sheet (NVIDIA, 2024): 989 / 1,979 TFLOPS dense BF16 / FP8, 3.35 TB/s, NVLink 900.
_H100 = Gpu(
    name="H100",
    memory_bytes=81_559 * _MIB,  # nvidia-smi, "80 GB"
    bandwidth=3.35e12,
    bf16_flops=989e12,
    fp8_flops=1979e12,
    fp4_flops=None,
    gpus_per_node=8,
    domain_gpus=8,
    link_bandwidth=450e9,
    nic_bandwidth=50e9,  # ConnectX-7, 400 Gb/s a GPU: DGX H100 data sheet
)
# HGX B200 (NVIDIA, 2025): 2.25 / 4.5 / 9 PFLOPS dense BF16 / FP8 / FP4, 8 TB/s, NVLink 1.8 TB/s.
_B200 = Gpu(
    name="B200",
    memory_bytes=183_359 * _MIB,  # nvidia-smi, "180 GB"
    bandwidth=8.0e12,
    bf16_flops=2250e12,
    fp8_flops=4500e12,
    fp4_flops=9000e12,
    gpus_per_node=8,
    domain_gpus=8,
    link_bandwidth=900e9,
    nic_bandwidth=50e9,  # ConnectX-7, 400 Gb/s a GPU: DGX B200 data sheet
)
# GB200 NVL72 (NVIDIA, 2025): 2.5 / 5 / 10 PFLOPS dense a GPU, 8 TB/s, NVLink 1.8 TB/s, 4 a tray.
_GB200 = replace(
    _B200,
    name="GB200",
    memory_bytes=189_471 * _MIB,  # nvidia-smi, "186 GB"
    bf16_flops=2500e12,
    fp8_flops=5000e12,
    fp4_flops=10_000e12,
    gpus_per_node=4,
    domain_gpus=72,
)
# Instinct MI300X data sheet (AMD, 2023): 1,307 / 2,615 TFLOPS dense, 5.3 TB/s, 7 links of 64 GB/s.
_MI300X = Gpu(
    name="MI300X",
    memory_bytes=196_592 * _MIB,  # rocm-smi, "192 GB"
    bandwidth=5.3e12,
    bf16_flops=1307e12,
    fp8_flops=2615e12,
    fp4_flops=None,
    gpus_per_node=8,
    domain_gpus=8,
    link_bandwidth=448e9,
    nic_bandwidth=50e9,
    never_fitted=True,
)

HARDWARE: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _H100,
        # H800 is H100 with NVLink at 400 GB/s: DeepSeek-V3 technical report, section 3.1 and
        # "Insights into DeepSeek-V3", section 4.1. Its price: open-infra-index, day 6.
        replace(_H100, name="H800", link_bandwidth=200e9, price_per_hour=2.0),
        # H200 SXM data sheet (NVIDIA, 2024): 141 GB, 4.8 TB/s; arithmetic and links of H100.
        replace(_H100, name="H200", memory_bytes=143_771 * _MIB, bandwidth=4.8e12),
        # H20 SXM (NVIDIA, 2024): 148 / 296 TFLOPS dense, 4.0 TB/s, 96 GB, NVLink 900 GB/s; four
        # 400 Gb/s NICs a node: the Ant Group report that the published figures quote.
        replace(
            _H100,
            name="H20",
            memory_bytes=97_871 * _MIB,
            bandwidth=4.0e12,
            bf16_flops=148e12,
            fp8_flops=296e12,
            nic_bandwidth=25e9,
            never_fitted=True,  # a seventh of H100's arithmetic: no kin of the GPUs that were
        ),
        _B200,
        # HGX B300 (NVIDIA, 2025): 13.5 PFLOPS dense FP4, 8 TB/s, ConnectX-8 at 800 Gb/s a GPU.
        replace(
            _B200,
            name="B300",
            memory_bytes=275_040 * _MIB,  # nvidia-smi, "288 GB" with 270 GB to use
            fp4_flops=13_500e12,
            nic_bandwidth=100e9,
        ),
        _GB200,
        # GB300 NVL72 (NVIDIA, 2025): 15 PFLOPS dense FP4 a GPU, 8 TB/s, ConnectX-8 at 800 Gb/s.
        replace(
            _GB200,
            name="GB300",
            memory_bytes=284_208 * _MIB,  # nvidia-smi, "288 GB" with 279 GB to use
            fp4_flops=15_000e12,
            nic_bandwidth=100e9,
        ),
        _MI300X,
        # MI325X data sheet (AMD, 2024): 256 GB, 6.0 TB/s; the rest is MI300X's.
        replace(_MI300X, name="MI325X", memory_bytes=262_128 * _MIB, bandwidth=6.0e12),
        # MI355X data sheet (AMD, 2025): 2.5 / 5.0 / 10 PFLOPS dense, 288 GB, 8 TB/s, 7 links.
        replace(
            _MI300X,
            name="MI355X",
            memory_bytes=294_896 * _MIB,
            bandwidth=8.0e12,
            bf16_flops=2500e12,
            fp8_flops=5000e12,
            fp4_flops=10_000e12,
            link_bandwidth=537e9,
        ),
    )
}
