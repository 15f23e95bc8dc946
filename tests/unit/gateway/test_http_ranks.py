"""The DeepSeek API over engines behind HTTP servers of their own."""

import asyncio
from pathlib import Path

import pytest
import uvicorn
from typing_extensions import override

from orchestrator.codec import Tokenizer
from orchestrator.core import RankId, Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.channel.sockets import bound_socket, name_of
from orchestrator.engines.http import FakeServer
from orchestrator.gateway import Member
from orchestrator.spec import Spec
from tests.gateway_stack import Rank, gateway_stack, until
from tests.scripted_gateway import R1_ALONE


class HttpRank(Rank):
    """A fake engine behind vLLM's HTTP API instead of a token channel."""

    @override
    async def start(self) -> Member:
        sock = bound_socket("127.0.0.1", 0)
        config = uvicorn.Config(FakeServer(self.engine).app(), log_config=None)
        self._http = uvicorn.Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._http.serve([sock]))
        await until(lambda: self._http.started)
        return Member(RankId(f"{self.name}/0"), self.role, f"http://{name_of(sock)}", self.name)

    @override
    async def stop(self) -> None:
        self._http.should_exit = True
        await self._serving


@pytest.mark.parametrize("kind", [Rank, HttpRank])
async def test_an_answer_is_the_same_whatever_way_its_ids_came(
    kind: type[Rank], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    spec = Spec(models=R1_ALONE)
    rank = kind(Role.UNIFIED, "u", FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.0))
    tokenizers = {R1_ALONE[0].name: tokenizer}
    async with gateway_stack(spec, tokenizers, [rank], tmp_path) as running:
        _, answer, finish = await running.ask("Why is the sky blue?", max_tokens=200)
    assert "sky blue" in answer
    assert finish == "stop"


async def test_a_client_that_leaves_frees_the_engine_behind_http(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rank = HttpRank(Role.UNIFIED, "u", FakeEngineSpec(step_s=0.01, thought_tokens=5_000))
    tokenizers = {R1_ALONE[0].name: tokenizer}
    async with gateway_stack(Spec(models=R1_ALONE), tokenizers, [rank], tmp_path) as running:
        stream = await running.openai.chat.completions.create(
            model="deepseek-reasoner",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
        )
        await anext(aiter(stream))
        assert rank.engine.load().running == 1
        await stream.close()
        await until(lambda: rank.engine.load().running == 0)


async def test_the_doctor_says_what_engines_behind_http_do_not_tell(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    spec = Spec(models=R1_ALONE)
    pace = FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.0, prefix_blocks=512)
    rank = HttpRank(Role.UNIFIED, "u", pace)
    async with gateway_stack(spec, {R1_ALONE[0].name: tokenizer}, [rank], tmp_path) as running:
        report = (await running.http.post("/operator/doctor")).json()
    found = {f["probe"]: (f["state"], f["seen"]) for f in report["models"][0]["findings"]}
    assert report["state"] == "unknown"
    assert found["answers"][0] == found["cancel"][0] == found["budget"][0] == "ok"
    for probe in ("clock", "shm", "disk", "blocks_freed"):
        assert found[probe] == ("unknown", "the engine does not tell")
    assert found["transfer"] == ("off", "one pool does both")
