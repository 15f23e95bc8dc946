"""Why a layout is not the plan."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The constraints, in the order in which they are tried; the first violated one is reported."""

    # of the model's sizes
    HEADS = "heads"
    EXPERTS = "experts"
    EXPERT_WIDTH = "expert-width"
    DENSE_MODEL = "dense-model"
    # of the engine
    STAGES_SEND_NO_KV = "stages-send-no-kv"
    # of the fabric
    TENSOR_ACROSS_NODES = "tensor-across-nodes"
    SLICES_ACROSS_NODES = "slices-across-nodes"
    NO_RDMA = "no-rdma"
    STAGES_WITH_RDMA = "stages-with-rdma"
    # of what was asked
    FP8_KV = "fp8-kv"
    # of memory
    MEMORY = "memory"
    KV_ROOM = "kv-room"
    # of fleets of such gangs
    PARTNER = "partner"
    TTFT = "ttft"
    ITL = "itl"
    RATE = "rate"
    OUTDONE = "outdone"


# Legal for the engine, and refused unless the operator allows them by name.
OF_CHOICE = frozenset({Reason.TENSOR_ACROSS_NODES, Reason.STAGES_WITH_RDMA, Reason.FP8_KV})


@dataclass(frozen=True, slots=True)
class Violation:
    """A reason with its arithmetic, one sentence."""

    reason: Reason
    why: str
