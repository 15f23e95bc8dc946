"""A gateway that a drill has told to do without something, over real token channels."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.fleet.drill import Disturbance
from orchestrator.spec import EngineKind, HandoffSpec, KvHandoff, local_spec
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

QUESTION = "Why is the sky blue, and what would it take to make it green on a Tuesday afternoon?"
ENGINE = FakeEngineSpec(step_s=0.005, prefill_s_per_token=0.0)
MODEL = "DeepSeek-R1"


def pair() -> Sequence[Rank]:
    return [Rank(Role.PREFILL, "p", ENGINE), Rank(Role.DECODE, "d", ENGINE)]


def ends(running: GatewayStack) -> list[dict[str, object]]:
    lines = map(json.loads, (running.logs / "log").read_text().splitlines())
    return [line for line in lines if line["event"] == "request_ended"]


@pytest.mark.parametrize("kv", list(KvHandoff))
async def test_kv_that_does_not_arrive_is_computed_where_it_is_decoded(
    tokenizer: Tokenizer, tmp_path: Path, kv: KvHandoff
) -> None:
    spec = replace(local_spec(EngineKind.FAKE, 2, "unused"), handoff=HandoffSpec(kv=kv))
    async with gateway_stack(spec, {MODEL: tokenizer}, pair(), tmp_path) as running:
        undisturbed = await running.ask(QUESTION)
        assert running.models.disturb(Disturbance.TRANSFERS, 60.0) == 1
        assert await running.ask(QUESTION) == undisturbed
        prefill = running.ranks["p"].engine
        await until(lambda: prefill.load().kv_usage == 0)  # what nobody wanted is freed
        tried = [end["ranks"] for end in ends(running)][-1]
        assert tried == ["p/0", "d/0", "d/0"]
        counted = running.models.metrics.exposition().decode()
        outcomes = dict(re.findall(r'r1_transfers_total{.*outcome="(\w+)".*} (\S+)', counted))
        assert outcomes == {"moved": "1.0", "failed": "1.0"}
        assert running.models.disturb(Disturbance.TRANSFERS, 0.0) == 1
        assert await running.ask(QUESTION) == undisturbed


async def test_a_gateway_says_which_rank_has_a_session(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    spec = local_spec(EngineKind.FAKE, 2, "unused")
    async with gateway_stack(spec, {MODEL: tokenizer}, pair(), tmp_path) as running:
        async with asyncio.TaskGroup() as group:
            asked = running.ask(QUESTION, extra_headers={"X-Session-Id": "one"})
            group.create_task(asked)
            group.create_task(running.ask(QUESTION, extra_headers={"X-Session-Id": "someone"}))
            await until(lambda: running.models.ranks_of("one") == ["d/0"])
            assert running.models.ranks_of("on") == []
        assert running.models.ranks_of("one") == []
