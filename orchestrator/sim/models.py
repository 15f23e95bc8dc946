"""The numbers of a simulated gang, from the sizes and factors of `perf`."""

import math
from collections.abc import Callable

import numpy as np

from orchestrator.core import Role
from orchestrator.perf import EngineFamily, Factors, LayoutGrid, kv_transfer_s, ledger
from orchestrator.perf.factors import Efficiency
from orchestrator.perf.point import Point
from orchestrator.perf.system import efficiency
from orchestrator.perf.tables import PassTables
from orchestrator.perf.traffic import DRAFT_DECAY, FIRST_DRAFT_ACCEPTED
from orchestrator.sim.job import GangModel, Scheduling

BLOCK_TOKENS = 64  # vLLM's block with MLA kernels
SEQUENCES_MAX = 256  # of a rank, where nobody says: vLLM's --max-num-seqs below 70 GB
_WATERMARK = 0.01  # of the blocks, kept for what the model of memory does not know

SCHEDULING = {
    EngineFamily.VLLM: Scheduling.MIXED,
    EngineFamily.SGLANG: Scheduling.PREFILL_FIRST,
    EngineFamily.TRTLLM: Scheduling.MIXED,
    EngineFamily.IN_HOUSE: Scheduling.MIXED,
}
# TensorRT-LLM's default `capacity_scheduler_policy` is GUARANTEED_NO_EVICT.
GUARANTEED = frozenset({EngineFamily.TRTLLM})


def gang_model(
    role: Role,
    grid: LayoutGrid,
    *,
    sequences_max: int = SEQUENCES_MAX,
    start_s: float = 120.0,
    balance: float | None = None,
    factors: Factors | None = None,
    accepted: tuple[float, ...] | None = None,
    luck: float = 1.0,
) -> GangModel:
    """The model of a grid of one layout. `accepted` are the drafts' chances, as published if None;
    `luck` scales how much the busiest expert rank has more than its share.
    """
    e = efficiency(grid, factors)
    point = Point.of(grid, balance)
    drafts = int(grid.mtp_drafts.flat[0])
    tokens = float(ledger(grid).kv_tokens_per_rank.flat[0])
    blocks = int(tokens * (1 - _WATERMARK)) // BLOCK_TOKENS
    base_s, thousand_s = (
        float(kv_transfer_s(grid, tokens, factors).flat[0]) for tokens in (0.0, 1000.0)
    )
    gpus = int(grid.gpus.flat[0])
    return GangModel(
        role=role,
        ranks=int(grid.dp.flat[0]),
        passes=PassTables(point, e, sequences_max, luck),
        blocks=max(blocks, 1),
        block_tokens=BLOCK_TOKENS,
        sequences_max=sequences_max,
        chunk_tokens=int(grid.chunk_tokens.flat[0]),
        stages=int(grid.pp.flat[0]),
        scheduling=SCHEDULING[grid.engine],
        guaranteed=grid.engine in GUARANTEED,
        accepted=published_chances(drafts) if accepted is None else accepted,
        gpus=gpus,
        nodes=math.ceil(gpus / grid.hardware.gpus_per_node),
        start_s=start_s,
        transfer_base_s=base_s,
        transfer_token_s=(thousand_s - base_s) / 1000.0,
    )


def published_chances(drafts: int) -> tuple[float, ...]:
    """The chance of each draft, given that those before it held."""
    return tuple(FIRST_DRAFT_ACCEPTED * DRAFT_DECAY**at for at in range(drafts))


def chances_of(drafts: int, accept_tokens: float) -> tuple[float, ...]:
    """Chances in the published proportions that gain so many tokens a step."""

    def gained(scale: float) -> float:
        reached, total = 1.0, 1.0
        for chance in published_chances(drafts):
            reached *= min(1.0, chance * scale)
            total += reached
        return total

    low, high = 0.0, 1 / (FIRST_DRAFT_ACCEPTED * DRAFT_DECAY ** max(drafts - 1, 0))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if gained(middle) < accept_tokens else (low, middle)
    return tuple(min(1.0, chance * low) for chance in published_chances(drafts))


def luck_of(ranks: int, draw: Callable[[float, float], float]) -> float:
    """The largest of so many standard normal draws beside what is expected of it."""
    if ranks < 2:
        return 1.0
    return max(draw(0.0, 1.0) for _ in range(ranks)) / math.sqrt(2 * math.log(ranks))


def first_token_s(e: Efficiency) -> float:
    """Of TTFT, what is neither queue nor prefill."""
    return float(np.asarray(e.first_token_s).flat[0])
