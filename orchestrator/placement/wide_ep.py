"""How the ranks of a gang exchange tokens among its experts: kernels, balance, overlap, as data.

What vLLM 0.32 accepts is in its `config/parallel.py` (`All2AllBackend`, `EPLBConfig`) and
`config/vllm.py` (what microbatching runs on); a contract test gives it every command line.
"""

import json
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core import Role
from orchestrator.perf import Gpu
from orchestrator.spec import Fabric

# Experts are dealt anew about as often as the load moves, and no sooner: copying weights costs.
REBALANCE_S = 300.0
REBALANCE_STEPS_MIN = 100
LOAD_WINDOW_STEPS = 1_000  # over which loads of experts are counted: vLLM's default
GRAPH_TOKENS_MAX = 1_024  # of a captured step; beyond it launches cost little beside the work


class Exchange(StrEnum):
    """vLLM's --all2all-backend."""

    GATHER = "allgather_reducescatter"  # NCCL's own; inside one NVLink domain, and without RDMA
    DEEPEP_MANY = "deepep_high_throughput"  # for prefill: many tokens of few requests
    DEEPEP_FEW = "deepep_low_latency"  # for decode: RDMA writes from kernels in CUDA graphs
    NVLINK = "flashinfer_nvlink_one_sided"  # across nodes of one NVLink domain
    MORI_MANY = "mori_high_throughput"  # AMD's
    MORI_FEW = "mori_low_latency"


# What vLLM's microbatching runs on; with any other exchange it does not start.
OVERLAPPING = frozenset({Exchange.DEEPEP_MANY, Exchange.DEEPEP_FEW})


@dataclass(frozen=True, slots=True)
class Balance:
    """vLLM's EPLB: redundant experts over all ranks, and how often they are dealt anew."""

    redundant: int
    interval_steps: int

    @property
    def window_steps(self) -> int:
        """The steps whose loads count; no more than lie between two deals."""
        return min(LOAD_WINDOW_STEPS, self.interval_steps)


@dataclass(frozen=True, slots=True)
class WideEp:
    """How one gang exchanges."""

    exchange: Exchange
    overlap: bool  # two batches: one computes while the other communicates
    balance: Balance | None

    def __post_init__(self) -> None:
        assert not self.overlap or self.exchange in OVERLAPPING, "vLLM does not start so"

    @property
    def flags(self) -> tuple[str, ...]:
        """vLLM's, without what is so by default."""
        flags: list[str] = []
        if self.balance is not None:
            config = {
                "num_redundant_experts": self.balance.redundant,
                "step_interval": self.balance.interval_steps,
                "window_size": self.balance.window_steps,
            }
            flags += ["--enable-eplb", "--eplb-config", json.dumps(config, sort_keys=True)]
        if self.exchange is not Exchange.GATHER:
            flags += ["--all2all-backend", self.exchange.value]
        if self.overlap:
            flags += ["--enable-dbo"]
        return tuple(flags)


# SGLang 0.5's --moe-a2a-backend, and the kernels' mode where it has one.
_SGLANG = {
    Exchange.GATHER: (),
    Exchange.DEEPEP_MANY: ("--moe-a2a-backend", "deepep", "--deepep-mode", "normal"),
    Exchange.DEEPEP_FEW: ("--moe-a2a-backend", "deepep", "--deepep-mode", "low_latency"),
    Exchange.NVLINK: ("--moe-a2a-backend", "flashinfer"),
    Exchange.MORI_MANY: ("--moe-a2a-backend", "mori"),
    Exchange.MORI_FEW: ("--moe-a2a-backend", "mori"),
}


def sglang_flags(wide: WideEp) -> tuple[str, ...]:
    """The same in SGLang's words."""
    flags = [*_SGLANG[wide.exchange]]
    if wide.balance is not None:
        flags += [
            "--enable-eplb",
            *("--ep-num-redundant-experts", str(wide.balance.redundant)),
            *("--eplb-rebalance-num-iterations", str(wide.balance.interval_steps)),
        ]
    if wide.overlap:
        flags += ["--enable-two-batch-overlap"]
    return tuple(flags)


def exchange_of(gpu: Gpu, fabric: Fabric, role: Role, ep: int, gpus_per_node: int) -> Exchange:
    """The kernels for experts on `ep` GPUs."""
    if ep <= gpus_per_node or (fabric is not Fabric.RDMA and ep > gpu.domain_gpus):
        return Exchange.GATHER
    few = role is Role.DECODE
    if gpu.generation == "cdna":
        return Exchange.MORI_FEW if few else Exchange.MORI_MANY
    if ep <= gpu.domain_gpus:
        return Exchange.NVLINK
    return Exchange.DEEPEP_FEW if few else Exchange.DEEPEP_MANY


def balance_of(redundant: int, step_s: float) -> Balance | None:
    """The balance of a gang whose steps are predicted to take `step_s`; None without copies."""
    if not redundant:
        return None
    return Balance(redundant, max(REBALANCE_STEPS_MIN, round(REBALANCE_S / step_s)))


def graph_flags(role: Role, sequences: int, drafts: int) -> tuple[str, ...]:
    """CUDA graphs for every step of a rank that decodes `sequences`, each with its drafts.

    vLLM captures up to twice its sequences or 512 tokens, whichever is less: steps of larger
    batches would run without. Prefill steps are too large for graphs to matter.
    """
    tokens = sequences * (1 + drafts)
    if role is Role.PREFILL or tokens <= min(2 * sequences, 512):
        return ()
    return ("--max-cudagraph-capture-size", str(min(-(-tokens // 8) * 8, GRAPH_TOKENS_MAX)))
