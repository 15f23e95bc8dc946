"""Arrivals, lengths and prefixes: named profiles, traces, and plain numbers."""

from orchestrator.workload.draw import Lottery, drawn_requests
from orchestrator.workload.numbers import (
    KEYS,
    Numbers,
    changed,
    from_numbers,
    read_numbers,
    split_numbers,
)
from orchestrator.workload.profiles import (
    DAY6_CACHED_TOKENS,
    DAY6_INPUT_TOKENS,
    DAY6_OUTPUT_TOKENS,
    PROFILES,
)
from orchestrator.workload.servegen import is_servegen, read_servegen, servegen_requests
from orchestrator.workload.trace import read_trace, trace_requests
from orchestrator.workload.trace_files import open_trace
from orchestrator.workload.workload import (
    BLOCK_TOKENS,
    Arrivals,
    Lengths,
    TraceRequest,
    Workload,
    at_rate,
    constant,
    summarise,
)

__all__ = [
    "BLOCK_TOKENS",
    "DAY6_CACHED_TOKENS",
    "DAY6_INPUT_TOKENS",
    "DAY6_OUTPUT_TOKENS",
    "KEYS",
    "PROFILES",
    "Arrivals",
    "Lengths",
    "Lottery",
    "Numbers",
    "TraceRequest",
    "Workload",
    "at_rate",
    "changed",
    "constant",
    "drawn_requests",
    "from_numbers",
    "is_servegen",
    "open_trace",
    "read_numbers",
    "read_servegen",
    "read_trace",
    "servegen_requests",
    "split_numbers",
    "summarise",
    "trace_requests",
]
