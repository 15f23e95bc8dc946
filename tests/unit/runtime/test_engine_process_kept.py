"""One engine process below its keeper: what it says is noted, and why it ended."""

import asyncio
import sys
from pathlib import Path

from orchestrator.engines.command import EngineCommand
from orchestrator.runtime.engine_process import EngineProcess

SAYS = """
import sys
print('{"event":"phase","phase":"loading weights 1/2"}', flush=True)
print('{"event":"phase","phase":"loading weights 2/2"}', flush=True)
"""
READY = """
info = '{"engine":"x","model":"m","max_model_len":9,"block_size":1,"kv_blocks":1}'
print('{"event":"ready","address":"h:1","weights_bytes":7,"info":' + info + '}', flush=True)
"""
FAILS = """
sys.stderr.write("INFO fine\\nValueError: the first of all\\nRuntimeError: what follows\\n")
sys.exit(3)
"""


def run(code: str, tmp_path: Path) -> tuple[EngineProcess, bool]:
    """The process after its end, and whether a change was announced."""
    command = EngineCommand((sys.executable, "-c", code), {}, rank=1)
    process = EngineProcess(command, tmp_path / "engine.log")

    async def live() -> bool:
        changed = asyncio.Event()
        await process.start()
        await process.follow(changed)
        return changed.is_set()

    return process, asyncio.run(live())


def test_a_rank_that_serves_says_where_and_how_long_each_phase_took(tmp_path: Path) -> None:
    process, changed = run(SAYS + READY, tmp_path)
    assert changed
    assert process.ready is not None
    assert (process.ready.rank, process.ready.address) == (1, "h:1")
    assert process.ready.weights_bytes == 7
    assert set(process.ready.phases_s) == {"starting", "loading weights"}


def test_a_failure_has_the_first_error_of_its_log_and_the_last_lines(tmp_path: Path) -> None:
    process, _ = run(SAYS + FAILS, tmp_path)
    assert process.ready is None
    assert process.phase == "loading weights 2/2"
    ended = process.ended()
    assert "ended with code 3; first error in its log: ValueError: the first" in ended.cause
    assert ended.cause.endswith(
        "its log ends: INFO fine | ValueError: the first of all | RuntimeError: what follows"
    )
    assert "engine.log" in ended.cure
