"""vLLM, on a tiny checkpoint of R1's architecture, keeps the contract of engines."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from orchestrator.engines.command import CPU_FLAGS
from tests.contract.engine_contract import (
    ConstraintContract,
    EngineContract,
    RefusalContract,
    Rig,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    # vLLM's own, at its end and in torch's compiler
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MAX_MODEL_LEN = 1024


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

    path: Path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(path, CheckpointKind.RANDOM)
    return (
        *("--model", str(path)),
        *("--max-model-len", str(MAX_MODEL_LEN)),
        *("--max-num-seqs", "64"),
        *("--block-size", "16"),
        # in full precision: random weights have nearly flat logits, and batches must not matter
        *("--dtype", "float32"),
        *("--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)),
        *CPU_FLAGS,
        *("--reasoning-parser", "deepseek_r1"),
        # random weights write blanks for as long as JSON lets them
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    )


@pytest.fixture(scope="module")
def rig(flags: tuple[str, ...]) -> Iterator[Rig]:
    """One engine for all tests; the last one stops it."""
    from orchestrator.engines.vllm_engine import VllmEngine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig = Rig(runner, patience_s=60)
        rig.engine = VllmEngine(flags)
        rig.info = runner.run(rig.start(rig.engine))
        yield rig
        runner.run(rig.engine.stop())


class TestConstraints(ConstraintContract, RefusalContract):
    """The shared suite of engines that take constraints."""


class TestVllmEngine(EngineContract):
    """The shared suite."""
