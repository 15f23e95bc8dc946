"""vLLM, on a tiny checkpoint of R1's architecture, keeps the contract of engines."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import uvloop

from orchestrator.core import RankId, Role
from orchestrator.engines.command import CPU_FLAGS, KV_EVENT_FLAGS
from orchestrator.engines.engine import Sampling
from orchestrator.engines.kv_events import KvHashing
from orchestrator.engines.kv_subscriber import KvSubscriber
from orchestrator.routing import Member, Router, StepCosts, prompt_keys, same_costs
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
        *KV_EVENT_FLAGS,
        *("--reasoning-parser", "deepseek_r1"),
        # random weights write blanks for as long as JSON lets them
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    )


@pytest.fixture(scope="module")
def rig(flags: tuple[str, ...]) -> Iterator[Rig]:
    """One engine for all tests; the last one stops it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_HOST_IP", "127.0.0.1")  # where the KV events are published
        yield from started(flags)


def started(flags: tuple[str, ...]) -> Iterator[Rig]:
    from orchestrator.engines.vllm_engine import VllmEngine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig = Rig(runner, patience_s=60)
        rig.engine = VllmEngine(flags)
        rig.info = runner.run(rig.start(rig.engine))
        yield rig
        runner.run(rig.engine.stop())


def test_its_kv_events_tell_routing_which_blocks_it_holds(rig: Rig) -> None:
    source = rig.info.kv_events
    assert source is not None
    hashing = KvHashing.of(rig.info)
    block = rig.info.block_size
    rank = RankId("gang/0")
    router = Router(block, 10_000, same_costs(StepCosts(0.0, 1e-3)))
    router.join(Member(rank, Role.UNIFIED, 64, kv_tokens=1 << 16), kv_events=True)
    faults: list[str] = []
    subscriber = KvSubscriber(rank, "127.0.0.1:1", source, hashing, router, faults.append)
    shared = tuple(range(1000, 1000 + 3 * block))
    prompts = [(*shared, *range(2000 + at, 2000 + at + block)) for at in (0, 500)]

    def held(prompt: tuple[int, ...], salt: str) -> int:
        return router.index.hits(prompt_keys(prompt, block, salt)).sure.get(rank, 0)

    def is_held(prompt: tuple[int, ...], salt: str) -> bool:
        return held(prompt, salt) == 4

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(subscriber.run())
            for prompt in prompts:
                _, end = await rig.ended(rig.ask(prompt, Sampling(4, temperature=0.0)))
                await rig.until(partial(is_held, prompt, ""))
            assert end.cached_tokens == 3 * block  # as routing would have predicted
            await rig.ended(rig.ask(prompts[0], Sampling(4), cache_salt="mine"))
            await rig.until(partial(is_held, prompts[0], "mine"))
            subscriber.close()
            await following

    rig.play(scene())
    assert faults == []
    assert held(prompts[1], "mine") == 3
    assert held(prompts[0], "other") == 0
    assert router.index.counts.orphans == 0


class TestConstraints(ConstraintContract, RefusalContract):
    """The shared suite of engines that take constraints."""


class TestVllmEngine(EngineContract):
    """The shared suite."""
