"""What one rank of real vLLM costs on this machine: its start, its memory, its CPU time.

The engine processes of a gang are started as a node agent starts them, without Ray, on loopback.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from orchestrator.core import Role
from orchestrator.engines.command import EngineCommand
from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint
from orchestrator.runtime import keeper
from orchestrator.runtime.launch import NodeFacts, gang_commands, ports_per_node
from orchestrator.runtime.ports import PortClaims
from orchestrator.spec import (
    Device,
    EngineKind,
    EngineSpec,
    GangSpec,
    HandoffSpec,
    ModelSpec,
    PoolSpec,
)
from orchestrator.spec.local import CPU_VLLM_ARGS

START_S = 600.0
IDLE_S = 10.0
LAYOUTS = {
    "one rank": GangSpec(),
    "two tensor-parallel ranks": GangSpec(tensor_parallel=2),
    "two data-parallel ranks, experts shared": GangSpec(data_parallel=2, expert_parallel=True),
}


def rows() -> list[str]:
    """A row for each layout."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny"
        write_tiny_checkpoint(checkpoint, CheckpointKind.RANDOM)
        return [_row(name, gang, checkpoint) for name, gang in LAYOUTS.items()]


def _row(name: str, gang: GangSpec, checkpoint: Path) -> str:
    engine = EngineSpec(EngineKind.VLLM, device=Device.CPU, args=CPU_VLLM_ARGS, dtype="float32")
    pool = PoolSpec(Role.UNIFIED, 1, gang)
    model = ModelSpec(str(checkpoint), (pool,), "DeepSeek-R1", max_model_len=1_024, engine=engine)
    ports = PortClaims("127.0.0.1")
    facts = NodeFacts("", "127.0.0.1", "lo", ports.take(ports_per_node(model, Role.UNIFIED)))
    [commands] = gang_commands(model, Role.UNIFIED, "bench", (facts,), HandoffSpec())
    began_s = time.monotonic()
    with _running(commands) as processes:
        for process in processes:
            _await_ready(process)
        start_s = time.monotonic() - began_s
        cpu_s = _cpu_s()
        time.sleep(IDLE_S)
        idle = (_cpu_s() - cpu_s) / IDLE_S
        count, memory_bytes = _memory()
    ports.release()
    return (
        f"| {name} | {count} | {start_s:.0f} | {cpu_s:.0f} | {memory_bytes / 2**30:.1f} | "
        f"{100 * idle:.0f} % |"
    )


@contextlib.contextmanager
def _running(commands: tuple[EngineCommand, ...]) -> Iterator[list[subprocess.Popen[bytes]]]:
    keeper.adopt_orphans()
    processes = [
        subprocess.Popen(
            command.argv,
            env=dict(os.environ) | dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        left = psutil.Process().children(recursive=True)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, timeout=30)  # or the next layout would count them


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        text = process.stdout.readline()
        event = msgspec.json.decode(text)["event"] if text else "failed"
        assert event != "failed", text.decode()
        if event == "ready":
            return
    raise TimeoutError


def _cpu_s() -> float:
    """Of every process that was started here and lives; what ended before is not in it."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def _memory() -> tuple[int, int]:
    """Processes, and their proportional set size together."""
    children = psutil.Process().children(recursive=True)
    return len(children), sum(child.memory_full_info().pss for child in children)


if __name__ == "__main__":
    print("\n".join(rows()))
