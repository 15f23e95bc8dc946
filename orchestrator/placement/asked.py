"""What a plan is asked for."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.perf import Architecture, EngineFamily, Factors, Gpu, Kv, Precision, Weight
from orchestrator.placement.nodes import Node
from orchestrator.placement.reasons import Reason
from orchestrator.spec import Fabric
from orchestrator.workload import Workload


class Objective(StrEnum):
    """What the best plan has, among those within the SLO."""

    COST = "cost"  # least money for a million tokens
    THROUGHPUT = "throughput"  # most requests a second
    LATENCY = "latency"  # least time from a request's arrival to its last token
    GPUS = "gpus"  # fewest GPUs


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds in seconds on the means over requests; None is no bound."""

    ttft_s: float | None = None
    itl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a plan follows from.

    Nodes whose GPU count is not that of most nodes take gangs that are smaller than a node only.
    """

    model: Architecture
    gpu: Gpu
    nodes: tuple[Node, ...]
    workload: Workload
    slo: Slo = field(default_factory=Slo)
    objective: Objective = Objective.COST
    fabric: Fabric = Fabric.RDMA
    weights: Weight = Weight.FP8
    context_tokens: int = 32_768  # the longest request that must fit, prompt plus output
    price_per_hour: float | None = None  # US dollars a GPU; None: as the catalogue has it
    allowed: frozenset[Reason] = frozenset()  # reasons of choice that do not refuse
    engine: EngineFamily = EngineFamily.VLLM
    factors: Factors | None = None  # of the predictions; None: the shipped ones

    @property
    def gpus_per_node(self) -> int:
        """Of most nodes; of as many, the larger."""
        counts = Counter(node.gpus for node in self.nodes)
        return max(counts, key=lambda gpus: (counts[gpus], gpus))

    @property
    def full_nodes(self) -> int:
        """Nodes with that many GPUs: those that gangs of whole nodes may have."""
        size = self.gpus_per_node
        return sum(node.gpus == size for node in self.nodes)

    @property
    def gpus(self) -> int:
        """Of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def gpu_price_per_hour(self) -> float | None:
        """US dollars; None if nobody named a price."""
        return self.gpu.price_per_hour if self.price_per_hour is None else self.price_per_hour

    @property
    def rate(self) -> float | None:
        """Requests a second at the busiest time; None: as many as the fleet carries."""
        arrivals = self.workload.arrivals
        return None if arrivals is None else arrivals.peak_requests_per_s

    @property
    def fresh_tokens(self) -> float:
        """Tokens of a mean prompt whose KV is not there already."""
        return self.workload.input_tokens.mean * (1 - self.workload.prefix_hit)

    def precision(self, kv: Kv) -> Precision:
        """Formats of weights and KV; beside NVFP4 experts the rest is BF16, as NVIDIA has it."""
        dense = Weight.BF16 if self.weights is Weight.NVFP4 else self.weights
        return Precision(self.weights, dense, kv)
