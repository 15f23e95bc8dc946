"""Writes orchestrator/telemetry/gpus-made.jsonl: half a minute of four GPUs that nobody has had.

Two decode and two prefill, as hardware.py's H200 would: powers, clocks and sizes are of its data
sheet, activities are waves. It shows what boards look like, and nothing of any machine.
"""

import math
import sys
from pathlib import Path

from orchestrator.perf import HARDWARE
from orchestrator.telemetry.gpu import GpuReading, HostReading
from orchestrator.telemetry.recorded import head_line, line_of

SECONDS = 30
_POWER_LIMIT_W = 700.0  # H200 SXM data sheet
_CLOCK_HZ = 1.98e9  # boost: the same


def reading(index: int, second: int) -> GpuReading:
    """One GPU at one second: 0 and 1 prefill, 2 and 3 decode."""
    gpu, prefills = HARDWARE["H200"], index < 2
    wave = 0.5 + 0.5 * math.sin(2 * math.pi * (second / SECONDS + index / 7))
    tensor = (0.45 if prefills else 0.12) + 0.1 * wave
    memory = (0.3 if prefills else 0.65) + 0.1 * wave
    power_w = _POWER_LIMIT_W * (0.35 + 0.5 * max(tensor, memory * 0.8))
    link = gpu.link_bandwidth * (0.12 + 0.08 * wave)
    return GpuReading(
        index,
        sm_active=round(0.7 + 0.2 * wave, 3),
        tensor_active=round(tensor, 3),
        dram_active=round(memory, 3),
        any_kernel=1.0,
        sm_clock_hz=_CLOCK_HZ,
        clock_limits=(),
        power_w=round(power_w, 1),
        power_limit_w=_POWER_LIMIT_W,
        energy_j=round(1e6 + power_w * second),
        temperature_c=round(45 + 20 * power_w / _POWER_LIMIT_W),
        memory_used_bytes=round(0.9 * gpu.memory_bytes),
        memory_bytes=gpu.memory_bytes,
        nvlink_sent=round(link),
        nvlink_received=round(link * 0.98),
        pcie_sent=round(2e8 * (1 + wave)),
        pcie_received=round(3e8 * (1 + wave)),
        pcie_replays=0,
        ecc_corrected=0,
        ecc_uncorrected=0,
    )


def main() -> int:
    """Writes it."""
    lines = [head_line("no GPU: made by deploy/telemetry/make_recording.py")]
    for second in range(SECONDS):
        seen = HostReading(tuple(reading(index, second) for index in range(4)))
        lines += [line_of(seen)]
    Path("orchestrator/telemetry/gpus-made.jsonl").write_bytes(b"".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
