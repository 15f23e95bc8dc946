"""vLLM drafts with R1's layer of multi-token prediction, and the output stays what it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from orchestrator.engines.command import CPU_FLAGS
from orchestrator.engines.recitation import ANSWER_SCRIPT, PROMPT_TAIL, TinyShape
from tests.contract.engine_contract import Rig, greedy

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    # vLLM's own, at its end and in torch's compiler
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An engine that drafts one token a step, with weights that recite."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")
    import asyncio

    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint
    from orchestrator.engines.vllm_engine import VllmEngine

    path: Path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(path, CheckpointKind.SCRIPTED, shape=TinyShape(mtp_layers=1))
    flags = (
        *("--model", str(path), "--max-model-len", "1024", "--dtype", "float32"),
        *("--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)),
        *CPU_FLAGS,
        *("--speculative-config", '{"method":"mtp","num_speculative_tokens":1}'),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig = Rig(runner, patience_s=60)
        rig.engine = VllmEngine(flags)
        rig.info = runner.run(rig.start(rig.engine))
        yield rig
        runner.run(rig.engine.stop())


def counted(rig: Rig, name: str) -> float:
    """One of vLLM's counters."""
    text = rig.engine.metrics().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"vllm:spec_decode_num_{name}_total"
    )


def test_a_recitation_takes_a_step_for_two_tokens(rig: Rig, tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))  # control tokens too
    script = tuple(tokenizer.encode(ANSWER_SCRIPT, add_special_tokens=False).ids)
    prompt = tuple(tokenizer.encode(PROMPT_TAIL, add_special_tokens=False).ids)

    async def scene() -> None:
        ids, _ = await rig.ended(rig.ask(prompt, greedy(len(script) - len(prompt))))
        assert tuple(ids) == script[len(prompt) :]
        steps = rig.engine.load().steps
        drafted, accepted = counted(rig, "draft_tokens"), counted(rig, "accepted_tokens")
        assert accepted >= 0.95 * drafted, "a last draft may lie behind the end"
        assert steps < 0.6 * len(ids)

    rig.play(scene())
