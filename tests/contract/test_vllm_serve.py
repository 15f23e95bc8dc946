"""vLLM's own HTTP server, unmodified, keeps the contract of engines behind our adapter and gateway.

It is started as a module: on CPUs `vllm serve`, the same server, wants a distribution called vllm.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import uvloop

from orchestrator.codec import Conversation, Tokenizer, UserMessage, render
from orchestrator.engines.command import CPU_FLAGS, CPU_PLUGIN
from orchestrator.engines.http import HttpEngine
from orchestrator.runtime.ports import PortClaims
from orchestrator.spec import CATALOGUE
from tests.contract.engine_contract import (
    ConstraintContract,
    EngineContract,
    Rig,
    greedy,
)
from tests.live.local_stack import command, stream, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

START_S = 300.0
NAME = "DeepSeek-V3"  # which lets clients choose the temperature
QUESTION = "Which river is the longest?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install r1-serve[cpu] or [gpu]")
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(path, CheckpointKind.RANDOM)
    return path


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[str]:
    """The address of a running server."""
    ports = PortClaims("127.0.0.1")
    [port] = ports.take(1)
    argv = (
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(checkpoint), "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", "1024", "--max-num-seqs", "64", "--block-size", "16"),
        *("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20)),
        *("--generation-config", "vllm", "--enable-prompt-tokens-details"),
        *("--reasoning-parser", "deepseek_r1", *CPU_FLAGS),
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    )
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": CPU_PLUGIN,
    }
    with subprocess.Popen(argv, env=env) as process:
        try:
            until(lambda: process.poll() is not None or _is_healthy(port), START_S)
            assert process.poll() is None, "the server did not start"
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
    ports.release()


def _is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def rig(server: str) -> Iterator[Rig]:
    """The adapter on it, one for all tests; the last one stops it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig = Rig(runner, patience_s=60)
        engine = HttpEngine(server)
        rig.engine = engine
        rig.info = runner.run(rig.start(engine))
        watching = runner.get_loop().create_task(engine.watch())
        yield rig
        runner.run(engine.stop())
        runner.run(asyncio.wait_for(watching, 5))


def test_a_chat_streams_through_the_gateway(
    server: str, checkpoint: Path, rig: Rig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Its text is what the server makes of the prompt that our templates render."""
    ports = PortClaims("127.0.0.1")
    [port] = ports.take(1)
    options = ("--model", str(checkpoint), "--name", NAME, "--log-dir", str(tmp_path))
    argv = command("gateway", "--engine-url", f"http://{server}", "--port", str(port), *options)
    with subprocess.Popen(argv) as gateway:
        try:
            until(lambda: gateway.poll() is not None or _reaches_ranks(port), 60)
            url = f"http://127.0.0.1:{port}"
            client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
            sampling = {"temperature": 0.0, "max_tokens": 24}
            said = stream(client, QUESTION, sampling=sampling, model="deepseek-chat")
        finally:
            gateway.terminate()
    ports.release()
    profile = CATALOGUE[NAME]
    rendered = render(
        tokenizer,
        profile.template,
        Conversation((UserMessage(QUESTION),)),
        system_prompt=profile.system_prompt,
        force_think=profile.force_think,
    )

    async def scene() -> None:
        ids, _ = await rig.ended(rig.ask(tuple(rendered.ids), greedy(24)))
        assert said.reasoning + said.answer == tokenizer.decode(ids)

    rig.play(scene())
    assert (said.prompt_tokens, said.output_tokens) == (len(rendered.ids), 24)
    assert said.finish == "length"


def _reaches_ranks(port: int) -> bool:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
        return any(ranks for ranks in answer.json()["ranks"].values())
    except (httpx.HTTPError, ValueError):
        return False


class TestConstraints(ConstraintContract):
    """The shared suite of engines that take constraints."""


class TestVllmServe(EngineContract):
    """The shared suite, but for prefix hits: this server keeps none of MLA on a CPU."""
