"""How one gang is divided, and many such layouts side by side as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.perf.architecture import Architecture
from orchestrator.perf.hardware import Gpu
from orchestrator.perf.precision import Precision
from orchestrator.spec import Fabric

if TYPE_CHECKING:
    from orchestrator.perf.factors import Factors

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


class EngineFamily(StrEnum):
    """Whose kernels and scheduler run; each has factors of its own."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"
    IN_HOUSE = "in-house"  # DeepSeek's own


@dataclass(frozen=True, slots=True)
class Layout:
    """One gang: `tp` GPUs share a rank's attention, `dp` ranks a stage, `pp` stages the layers.

    `ep` divides the experts of a stage: 1 where each of its GPUs holds a slice of every expert,
    `tp * dp` where each holds whole experts, or a divisor of that.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    redundant_experts: int = 0  # copies beside the routed ones, over all EP ranks
    mtp_drafts: int = 0  # tokens guessed ahead in each decode step
    overlap: bool = False  # two batches, one computing while the other communicates
    chunk_tokens: int = 8192  # prompt tokens of one rank in one prefill step

    @property
    def gpus(self) -> int:
        """Of the whole gang."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class LayoutGrid:
    """Layouts of one model on one GPU type: each field an array, all of shapes that broadcast."""

    model: Architecture
    hardware: Gpu
    precision: Precision
    engine: EngineFamily
    fabric: Fabric
    tp: Array
    pp: Array
    dp: Array
    ep: Array
    redundant_experts: Array
    mtp_drafts: Array
    overlap: Array  # 0 or 1
    chunk_tokens: Array
    factors: "Factors | None" = None  # that hold for it; None: the shipped ones

    @classmethod
    def of(
        cls,
        layouts: Sequence[Layout],
        model: Architecture,
        hardware: Gpu,
        precision: Precision,
        engine: EngineFamily = EngineFamily.VLLM,
        fabric: Fabric = Fabric.RDMA,
    ) -> "LayoutGrid":
        """A grid of shape [layouts]."""
        arrays = {
            each.name: np.array([getattr(layout, each.name) for layout in layouts], dtype=float)
            for each in fields(Layout)
        }
        return cls(model, hardware, precision, engine, fabric, factors=None, **arrays)

    def _each(self, change: Callable[[Array], Array]) -> "LayoutGrid":
        return replace(
            self,
            tp=change(self.tp),
            pp=change(self.pp),
            dp=change(self.dp),
            ep=change(self.ep),
            redundant_experts=change(self.redundant_experts),
            mtp_drafts=change(self.mtp_drafts),
            overlap=change(self.overlap),
            chunk_tokens=change(self.chunk_tokens),
        )

    def column(self) -> "LayoutGrid":
        """The same with shape [layouts, 1], to be crossed with a row of loads."""
        return self._each(lambda array: array[..., None])

    def take(self, index: NDArray[np.intp]) -> "LayoutGrid":
        """The layouts at `index`, in its order and shape; repeats are allowed."""
        return self._each(lambda array: array[index])

    @property
    def gpus(self) -> Array:
        """Of each gang."""
        return self.tp * self.pp * self.dp
