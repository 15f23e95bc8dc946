"""In which number formats a model is served, and what a number costs in each."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from typing_extensions import override

from orchestrator.perf.hardware import Gpu


class Weight(StrEnum):
    """The format of a matrix and of the arithmetic with it."""

    BF16 = "bf16"
    FP8 = "fp8"  # e4m3 with a scale for each 128x128 block, as DeepSeek released R1
    NVFP4 = "nvfp4"  # e2m1 with an FP8 scale for each 16 numbers


class Kv(StrEnum):
    """The format of the KV cache."""

    BF16 = "bf16"
    FP8 = "fp8"


WEIGHT_BYTES = {
    Weight.BF16: 2.0,
    Weight.FP8: 1.0 + 4 / 128**2,  # an FP32 scale a block: config.json, weight_block_size
    Weight.NVFP4: 0.5 + 1 / 16,  # the scale of each 16: NVFP4 format, NVIDIA's technical blog
}
KV_BYTES = {Kv.BF16: 2.0, Kv.FP8: 1.0}


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of the experts, of everything else that is multiplied, and of the KV cache."""

    experts: Weight = Weight.FP8
    dense: Weight = Weight.FP8  # attention projections and the first layers
    kv: Kv = Kv.BF16

    @override
    def __str__(self) -> str:
        """The experts' format, which makes most of the difference."""
        return self.experts.value


def peak_flops(gpu: Gpu, weight: Weight) -> float:
    """Dense FLOP/s of the fastest units that can compute with `weight` on `gpu`.

    Formats that a GPU lacks are widened on the way: NVFP4 on Hopper computes as FP8.
    """
    match weight:
        case Weight.BF16:
            return gpu.bf16_flops
        case Weight.FP8:
            return gpu.fp8_flops
        case Weight.NVFP4:
            return gpu.fp4_flops or gpu.fp8_flops
        case _:
            assert_never(weight)
