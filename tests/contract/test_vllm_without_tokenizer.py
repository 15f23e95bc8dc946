"""vLLM without a tokenizer refuses what needs one; with attention that caches, salts keep KV apart.

A second engine, of R1's weights in their multi-head form: on CPUs vLLM caches no prefixes of MLA.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from orchestrator.engines import Finish, Grammar, GrammarKind, Sampling
from tests.contract.engine_contract import PrefixContract, Rig, prompt

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    # vLLM's own, at its end and in torch's compiler
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One engine for all tests."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint
    from orchestrator.engines.vllm_engine import VllmEngine

    path: Path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(path, CheckpointKind.RANDOM)
    flags = (
        *("--model", str(path)),
        *("--max-model-len", "1024"),
        *("--block-size", "32"),
        *("--dtype", "float32"),
        *("--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)),
        "--skip-tokenizer-init",
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        patch.setenv("VLLM_MLA_DISABLE", "1")
        rig = Rig(runner, patience_s=60)
        rig.engine = VllmEngine(flags)
        rig.info = runner.run(rig.start(rig.engine))
        yield rig
        runner.run(rig.engine.stop())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(4, grammar=Grammar(GrammarKind.JSON_OBJECT)),
        Sampling(4, thinking_budget=2),
    ],
    ids=["grammar", "budget"],
)
def test_what_needs_a_tokenizer_is_refused(rig: Rig, sampling: Sampling) -> None:
    async def scene() -> None:
        ids, end = await rig.ended(rig.ask(prompt(8), sampling))
        assert (ids, end.finish) == ([], Finish.REFUSED)
        assert "tokenizer" in end.cause
        assert rig.engine.failure() is None

    assert not rig.info.grammar
    rig.play(scene())


class TestPrefixes(PrefixContract):
    """The shared suite of engines that cache."""
