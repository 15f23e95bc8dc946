"""How long a gang takes to start, and a prompt's KV to move."""

import numpy as np

from orchestrator.perf.factors import Factors
from orchestrator.perf.layout import Array, LayoutGrid
from orchestrator.perf.ledger import ledger
from orchestrator.perf.point import Point
from orchestrator.perf.system import efficiency, transfer_s

_WARM_UP_S = 120.0  # processes, collectives, kernels compiled or loaded, CUDA graphs: vLLM's log of
# R1 on 8xH200 has 60-180 s between the last weight and the first token (an assumption elsewhere)


def kv_transfer_s(
    grid: LayoutGrid, prompt_tokens: float | Array, factors: Factors | None = None
) -> Array:
    """Moving the KV of a prompt from a rank of `grid` to another gang, over the NICs."""
    tokens = np.asarray(prompt_tokens, dtype=float)
    return transfer_s(Point.of(grid), efficiency(grid, factors), tokens)


def cold_start_s(
    grid: LayoutGrid, storage_bytes_per_s: float | Array, *, shared_storage: bool = False
) -> Array:
    """From nothing to a gang that serves; `storage_bytes_per_s` is what one node reads.

    Every node reads the weights of its own GPUs. With `shared_storage` the rate is of all nodes
    of the gang together.
    """
    nodes = np.ceil(grid.gpus / grid.hardware.gpus_per_node)
    read = node_weights_bytes(grid) * (nodes if shared_storage else 1)
    return np.asarray(read / np.asarray(storage_bytes_per_s, dtype=float) + _WARM_UP_S)


def node_weights_bytes(grid: LayoutGrid) -> Array:
    """Bytes of weights that the GPUs of one node hold together."""
    parts = ledger(grid).components
    weights = sum(
        parts[name]
        for name in parts
        if name not in ("kv", "activations", "cuda_graphs", "communication", "runtime")
    )
    return np.asarray(weights * np.minimum(grid.gpus, grid.hardware.gpus_per_node))


def load_s(weights_bytes: float, storage_bytes_per_s: float) -> float:
    """Reading the weights of one node."""
    return weights_bytes / storage_bytes_per_s


def start_s(weights_bytes: float, storage_bytes_per_s: float) -> float:
    """From nothing to a rank that serves, where a node reads so many bytes."""
    return load_s(weights_bytes, storage_bytes_per_s) + _WARM_UP_S
