"""R1's sizes, its memory and its speed: what a layout holds, and how fast it is under a load.

Everything here is a prediction from sizes and fitted factors; nothing was measured on this machine.
All functions are elementwise on numpy arrays that broadcast, so one call evaluates a whole grid:

    model, gpu = ARCHITECTURES["DeepSeek-R1"], HARDWARE["H200"]
    grid = LayoutGrid.of([Layout(tp=8), Layout(dp=8, ep=8)], model, gpu, Precision())
    ledger(grid).fits                                        # [layouts]
    traffic = Traffic(input_tokens=4000, output_tokens=1000)
    unified(grid.column(), 1, traffic, ClosedLoop(np.array([1, 8]))).tpot_s  # [layouts, loads]
    disaggregated(prefill, 2, decode, 3, traffic, OpenLoop(10.0)).request_rate
    error_band(gpu, EngineFamily.VLLM, Mode.UNIFIED)                  # Band | Extrapolated

* `grid.column()` has shape [layouts, 1], to cross with a row of loads; `grid.take(index)` picks.
* `decode_step` and `prefill_step` give one pass as named terms, in seconds.
* Lengths, concurrency and rates are means and may be fractions. Bytes are of one GPU.
* `unified` and `disaggregated` never fail: a layout that does not fit (`ledger(grid).fits`) gets
  what it would do with room for next to nothing. Filter first.
"""

from orchestrator.perf.architecture import ARCHITECTURES, Architecture, Experts
from orchestrator.perf.bands import LONG_CONTEXT_TOKENS, Band, Extrapolated, Mode, error_band
from orchestrator.perf.factors import Efficiency, Factors, read_factors, shipped_factors
from orchestrator.perf.hardware import HARDWARE, Gpu
from orchestrator.perf.layout import Array, EngineFamily, Layout, LayoutGrid
from orchestrator.perf.ledger import Ledger, expert_slots, ledger
from orchestrator.perf.precision import Kv, Precision, Weight
from orchestrator.perf.queueing import delayed, mean_wait
from orchestrator.perf.rank_costs import rank_costs
from orchestrator.perf.start import (
    cold_start_s,
    kv_transfer_s,
    load_s,
    node_weights_bytes,
    start_s,
)
from orchestrator.perf.step import StepTime
from orchestrator.perf.system import decode_step, disaggregated, prefill_step, unified
from orchestrator.perf.traffic import ClosedLoop, Load, OpenLoop, Prediction, Traffic

__all__ = [
    "ARCHITECTURES",
    "HARDWARE",
    "LONG_CONTEXT_TOKENS",
    "Architecture",
    "Array",
    "Band",
    "ClosedLoop",
    "Efficiency",
    "EngineFamily",
    "Experts",
    "Extrapolated",
    "Factors",
    "Gpu",
    "Kv",
    "Layout",
    "LayoutGrid",
    "Ledger",
    "Load",
    "Mode",
    "OpenLoop",
    "Precision",
    "Prediction",
    "StepTime",
    "Traffic",
    "Weight",
    "cold_start_s",
    "decode_step",
    "delayed",
    "disaggregated",
    "error_band",
    "expert_slots",
    "kv_transfer_s",
    "ledger",
    "load_s",
    "mean_wait",
    "node_weights_bytes",
    "prefill_step",
    "rank_costs",
    "read_factors",
    "shipped_factors",
    "start_s",
    "unified",
]
