"""A gateway whose ranks drain or die of a request, over real token channels."""

import asyncio
import json
from pathlib import Path

import openai
import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.spec import EngineKind, local_spec
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

QUESTION = "Why is the sky blue, and what would it take to make it green on a Tuesday afternoon?"
SLOW = FakeEngineSpec(step_s=0.02, prefill_s_per_token=0.0)
MODEL = "DeepSeek-R1"
SPEC = local_spec(EngineKind.FAKE, 3, "unused")


def fleet(*decode: FakeEngineSpec) -> list[Rank]:
    ranks = [Rank(Role.DECODE, f"d{at}", spec) for at, spec in enumerate(decode)]
    return [Rank(Role.PREFILL, "p", SLOW), *ranks]


def busy(running: GatewayStack) -> list[Rank]:
    return [
        rank
        for rank in running.ranks.values()
        if rank.role is Role.DECODE and rank.engine.load().running
    ]


async def test_a_drain_moves_a_stream_without_a_scratch_and_keeps_new_ones_away(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with gateway_stack(SPEC, {MODEL: tokenizer}, fleet(SLOW, SLOW), tmp_path) as running:
        undisturbed = await running.ask(QUESTION, max_tokens=40)
        async with asyncio.TaskGroup() as group:
            moved = group.create_task(running.ask(QUESTION, max_tokens=40))
            await until(lambda: bool(busy(running)))
            await asyncio.sleep(0.1)  # some tokens in
            [left] = busy(running)
            left.server.drain(0.0)
            await until(lambda: not left.engine.load().running)
            later = group.create_task(running.ask(QUESTION, max_tokens=40))
        assert moved.result() == undisturbed
        assert later.result() == undisturbed
        assert left.engine.load().running == 0
        assert running.models.ranks() == {MODEL: {"prefill": 1, "decode": 1}}
        lines = map(json.loads, (running.logs / "decisions").read_text().splitlines())
        reasons = [line["reason"] for line in lines if line["event"] == "drain"]
        assert reasons == ["out_of_time"]


async def test_where_there_is_no_other_rank_a_stream_stays_to_its_end(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with gateway_stack(SPEC, {MODEL: tokenizer}, fleet(SLOW), tmp_path) as running:
        undisturbed = await running.ask(QUESTION)
        async with asyncio.TaskGroup() as group:
            stays = group.create_task(running.ask(QUESTION))
            await until(lambda: bool(busy(running)))
            running.ranks["d0"].server.drain(0.0)
        assert stays.result() == undisturbed


async def test_a_prompt_that_engines_die_of_is_given_up_and_then_refused(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    mortal = FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.0, die_after_tokens=0)
    ranks = fleet(mortal, mortal, SLOW)
    async with gateway_stack(SPEC, {MODEL: tokenizer}, ranks, tmp_path) as running:
        # Whichever decode rank it is, it dies of the first request that it is given.
        with_room = running.ranks["d2"]
        with_room.server.drain(60.0)
        await until(lambda: running.models.ranks()[MODEL]["decode"] == 2)
        with pytest.raises(openai.BadRequestError, match="Engines have failed on this prompt"):
            await running.ask(QUESTION)
        log = (running.logs / "log").read_text()
        assert '"event":"request_quarantined"' in log
        assert "2 engines in a row have died at the beginning of it" in log
        with pytest.raises(openai.BadRequestError, match="Engines have failed on this prompt"):
            await running.ask(QUESTION)
