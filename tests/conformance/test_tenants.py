"""Tenants, end to end: limits, budgets, the journal, thoughts, the prefix cache."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest

from orchestrator.admission import PICO, cost_pico
from orchestrator.codec import Tokenizer
from orchestrator.core import TokenCounts
from orchestrator.engines import FakeEngineSpec
from orchestrator.gateway import read_usage
from orchestrator.gateway.decision_log import replay_thinking
from orchestrator.routing import prompt_keys
from orchestrator.spec import (
    AdmissionSpec,
    ApiSpec,
    ChannelSpec,
    ClassSpec,
    GatewaySpec,
    HandoffSpec,
    LoadLevel,
    ModelSpec,
    PrefixSharing,
    PricesSpec,
    ThinkingSpec,
    UsageSpec,
)
from tests.gateway_stack import until
from tests.scripted_gateway import (
    ADA,
    BOB,
    BOTH,
    EVE,
    FAST,
    R1,
    R1_ALONE,
    Json,
    Stack,
    error_of,
    events,
    one_loop,
    paced,
    stack,
    write_keys,
    write_tenants,
)

PRICES = PricesSpec(Decimal("55"), Decimal("14.5"), Decimal("219.000001"), Decimal("219"))
PRICED = (replace(R1_ALONE[0], prices=PRICES),)
ALONE = GatewaySpec(replicas=1)


def api_of(folder: Path, tenants: str) -> ApiSpec:
    return ApiSpec(
        keys_path=write_keys(folder / "keys", ADA, BOB, EVE),
        tenants_path=write_tenants(folder / "tenants.yaml", tenants),
    )


@asynccontextmanager
async def tenants_stack(
    tokenizer: Tokenizer,
    folder: Path,
    tenants: str,
    pace: FakeEngineSpec = FAST,
    models: tuple[ModelSpec, ...] = PRICED,
    **parts: object,
) -> AsyncIterator[Stack]:
    usage = UsageSpec(str(folder / "usage"), progress_s=0.05, sync_s=0.5)
    given: Json = {"api": api_of(folder, tenants), "gateway": ALONE, "usage": usage} | parts
    async with stack(tokenizer, folder, models, pace, **given) as it:
        yield it


async def balance(it: Stack, key: str) -> Json:
    headers = {"authorization": f"Bearer {key}"}
    answer = await it.running.http.get("/user/balance", headers=headers)
    found: Json = answer.json()
    return {"available": found["is_available"], **found["balance_infos"][0]}


def counts(usage: Json) -> TokenCounts:
    thinking = usage["completion_tokens_details"]["reasoning_tokens"]
    return TokenCounts(
        usage["prompt_cache_miss_tokens"],
        usage["prompt_cache_hit_tokens"],
        thinking,
        usage["completion_tokens"] - thinking,
    )


# --- limits --------------------------------------------------------------------------------------


@one_loop
async def test_each_limit_is_a_429_in_the_official_shape_that_says_when_to_come_back(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = """
tenants:
  ada: {streams_max: 1}
  bob: {requests_per_minute: 1}
  eve: {tokens_per_minute: {thinking: 60}}
"""
    async with tenants_stack(tokenizer, tmp_path, text, paced(0.01)) as it:

        async def refusal(key: str, stream: bool = False) -> tuple[str, int]:
            answer = await it.post("THINK 1 LONG 1", key=key, stream=stream)
            status, message = error_of(answer)
            assert (status, answer.json()["error"]["type"]) == (429, "rate_limit_error")
            return message, int(answer.headers["retry-after"])

        async with it.stream("LONG 9000") as lines:
            await anext(lines)
            assert await refusal("sk-ada", stream=True) == (
                "Rate limit reached: 1 streams are open, please try again later",
                1,
            )
            assert (await it.post("THINK 1 LONG 1")).status_code == 200, "this is no stream"
        assert (await it.post("THINK 1 LONG 1", key="sk-bob")).status_code == 200
        message, again_s = await refusal("sk-bob")
        assert "1 requests per minute" in message
        assert 50 <= again_s <= 60
        assert (await it.post("THINK 100 LONG 1", key="sk-eve")).status_code == 200
        message, again_s = await refusal("sk-eve")
        assert "60 thinking tokens per minute" in message
        assert 30 <= again_s <= 45, "it used a minute's worth and 41 tokens more"


@one_loop
async def test_a_tenant_whose_place_in_the_queue_is_full_hears_of_its_own_limit(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    parts: Json = {
        "channel": ChannelSpec(max_requests=1),
        "admission": AdmissionSpec(tenant_requests_max=1),
    }
    async with (
        tenants_stack(tokenizer, tmp_path, "tenants: {}", paced(0.01), **parts) as it,
        it.stream("LONG 9000", key="sk-bob") as lines,
        asyncio.TaskGroup() as group,
    ):
        await anext(lines)
        waits = group.create_task(it.post("LONG 1"))
        await until(lambda: it.running.models.observe()[R1].waiting == 1)
        answer = await it.post("LONG 1")
        assert error_of(answer) == (
            429,
            "Rate limit reached: too many of your requests wait, please try again later",
        )
        assert int(answer.headers["retry-after"]) > 0
        waits.cancel()


# --- money ---------------------------------------------------------------------------------------


@one_loop
async def test_a_budget_is_spent_by_what_usage_says_and_then_the_answer_is_402(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = "tenants: {ada: {budget: {granted: 0.1, topped_up: 0.2}}}"
    async with tenants_stack(tokenizer, tmp_path, text) as it:
        assert await balance(it, "sk-ada") == {
            "available": True,
            "currency": "USD",
            "total_balance": "0.30",
            "granted_balance": "0.10",
            "topped_up_balance": "0.20",
        }
        spent = 0
        while (answer := await it.post("THINK 300 LONG 40")).status_code == 200:
            assert spent < 3 * PICO // 10, "it is refused as soon as nothing is left"
            spent += cost_pico(PRICES, counts(answer.json()["usage"]))
        assert error_of(answer) == (402, "Insufficient Balance")
        left = await balance(it, "sk-ada")
        assert left["available"] is False
        assert left["total_balance"] == left["granted_balance"] == "0.00"
        assert (await balance(it, "sk-bob"))["available"] is True, "bob has no budget"
        assert (await it.post("Hi", key="sk-bob")).status_code == 200
    rows = read_usage(tmp_path / "usage").rows
    assert sum(row.cost_pico for key, row in rows.items() if key.tenant == "ada") == spent
    async with tenants_stack(tokenizer, tmp_path, text) as it:
        assert (await it.post("Hi")).status_code == 402, "another life knows what was spent"
    more = text.replace("topped_up: 0.2", "topped_up: 5")
    async with tenants_stack(tokenizer, tmp_path, more) as it:
        assert (await it.post("SKIP SAY: yes")).status_code == 200
        left = await balance(it, "sk-ada")
        assert left["granted_balance"] == "0.00", "this goes first"
        assert Decimal(left["total_balance"]) > Decimal("4.60")


@one_loop
async def test_each_request_ends_once_in_the_journal_with_what_its_client_was_told(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with tenants_stack(tokenizer, tmp_path, "tenants: {}", paced(0.001)) as it:
        told = counts((await it.post("THINK 30 LONG 9")).json()["usage"])
        streamed = events(await it.post("THINK 5 SAY: yes", stream=True))
        told += counts(streamed[-1]["usage"])
        assert (await it.post("Hi", key="sk-bob", max_tokens=0)).status_code == 400
        async with it.stream("THINK 9000", key="sk-eve") as lines:
            for _ in range(40):
                await anext(lines)
        await until(lambda: it.running_now() == 0)
    lines_of = [
        json.loads(line)
        for path in (tmp_path / "usage").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    opened = [line["request_id"] for line in lines_of if line["record"] == "opened"]
    ended = {line["request_id"]: line["outcome"] for line in lines_of if line["record"] == "ended"}
    assert sorted(opened) == sorted(ended)
    assert len(opened) == 3, "what was refused was never open"
    assert sorted(ended.values()) == ["cancelled", "stop", "stop"]
    found = read_usage(tmp_path / "usage")
    by_tenant = {key.tenant: row for key, row in found.rows.items()}
    assert by_tenant["ada"].tokens == told
    assert (by_tenant["ada"].requests, by_tenant["ada"].open) == (2, 0)
    assert by_tenant["eve"].tokens.thinking >= 15, "who leaves pays for what was drawn"
    assert found.damaged == 0


@one_loop
async def test_what_failed_before_anything_was_sent_costs_nothing(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pace = msgspec.structs.replace(FAST, fail_requests=1.0)
    handoff = HandoffSpec(retry_pause_s=0.0)
    async with tenants_stack(tokenizer, tmp_path, "tenants: {}", pace, handoff=handoff) as it:
        failed = await it.post("THINK 1 SAY: no")
    sent = failed.status_code == 200  # some tokens came before each failure
    told = counts(failed.json()["usage"]) if sent else TokenCounts()
    [row] = read_usage(tmp_path / "usage").rows.values()
    assert (row.requests, row.open, row.tokens) == (1, 0, told)


# --- thoughts ------------------------------------------------------------------------------------

HARD = "tenants: {ada: {thinking: {soft_tokens: 20, hard_tokens: 40}}}"
APART = (replace(BOTH[0], prices=PRICES),)


@one_loop
@pytest.mark.parametrize("models", [PRICED, APART])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_gateway_closes_a_thought_that_the_engine_does_not(
    tokenizer: Tokenizer, tmp_path: Path, models: tuple[ModelSpec, ...], stream: bool
) -> None:
    pace = msgspec.structs.replace(FAST, ignores_budgets=True)
    async with tenants_stack(tokenizer, tmp_path, HARD, pace, models) as it:
        answer = await it.post("THINK 500 SAY: All of it.", stream=stream)
        usage, said = _said(answer, stream=stream)
        assert said == "All of it."
        details = usage["completion_tokens_details"]
        thought = details["reasoning_tokens"] - 1  # the mark
        assert 38 <= thought <= 40, "the prompt and the model's own mark may count too"
        assert details["thinking_budget_tokens"] == 20
        assert 'r1_thoughts_closed_total{model="DeepSeek-R1-0528"} 1.0' in await it.metrics()
        short = await it.post("THINK 5 SAY: Yes.", stream=stream)
        assert _said(short, stream=stream)[1] == "Yes."
        json_asked = await it.post(
            "THINK 500 Answer in JSON", response_format={"type": "json_object"}
        )
        assert json.loads(_said(json_asked, stream=False)[1]) is not None


@one_loop
async def test_an_engine_that_takes_no_budgets_is_asked_for_none(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pace = msgspec.structs.replace(FAST, grammar=False)
    async with tenants_stack(tokenizer, tmp_path, HARD, pace) as it:
        usage, said = _said(await it.post("THINK 500 SAY: All of it."), stream=False)
        assert said == "All of it."
        assert usage["completion_tokens_details"]["reasoning_tokens"] <= 41
        assert {submit.sampling.thinking_budget for submit in it.submits} == {None}


@one_loop
async def test_an_engine_that_keeps_budgets_closes_the_thought_itself(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with tenants_stack(tokenizer, tmp_path, HARD) as it:
        usage, said = _said(await it.post("THINK 500 SAY: Yes."), stream=False)
        assert said == "Yes."
        assert it.decoded.sampling.thinking_budget == 20
        assert 18 <= usage["completion_tokens_details"]["reasoning_tokens"] - 1 <= 20
        assert "r1_thoughts_closed_total{" not in await it.metrics()
        other, _ = _said(await it.post("THINK 500 SAY: Yes.", key="sk-bob"), stream=False)
        assert "thinking_budget_tokens" not in other["completion_tokens_details"]


@one_loop
async def test_a_budget_leaves_room_for_the_answer_out_of_max_tokens(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with tenants_stack(tokenizer, tmp_path, HARD) as it:
        for key, effort in (("sk-ada", None), ("sk-bob", "low")):
            usage, said = _said(
                await it.post(
                    "THINK 500 SAY: Here I am.", key=key, max_tokens=30, reasoning_effort=effort
                ),
                stream=False,
            )
            assert said.startswith("Here I am")
            assert usage["completion_tokens"] <= 30
            assert usage["completion_tokens_details"]["thinking_budget_tokens"] == 14


@one_loop
async def test_class_and_load_shorten_thoughts_and_the_log_says_why(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    parts: Json = {
        "channel": ChannelSpec(max_requests=4),
        "admission": AdmissionSpec(classes=(ClassSpec("brief", thinking_tokens=300),)),
        "thinking": ThinkingSpec(levels=(LoadLevel(0.5, 100), LoadLevel(1.0, 10))),
    }
    text = "tenants: {eve: {admission_class: brief}}"
    async with tenants_stack(tokenizer, tmp_path, text, paced(0.002), **parts) as it:

        async def budget(key: str = "sk-ada") -> object:
            usage, _ = _said(await it.post("THINK 3 SAY: yes", key=key), stream=False)
            return usage["completion_tokens_details"].get("thinking_budget_tokens")

        assert [await budget(), await budget("sk-eve")] == [None, 300]
        async with it.stream("LONG 9000") as one, it.stream("LONG 9000") as two:
            for lines in (one, two):
                await anext(lines)
            assert [await budget(), await budget("sk-eve")] == [100, 100]
    lines_of = [
        json.loads(line)
        for line in (tmp_path / "decisions").read_text().splitlines()
        if '"event":"thinking"' in line
    ]
    assert [(line["decision"], line["reason"]) for line in lines_of] == [
        (300, "class"),
        (100, "load"),
        (100, "load"),
    ]
    for line in lines_of:
        again = replay_thinking(line)
        assert again is not None
        assert (again.soft_tokens, again.hard_tokens) == (line["decision"], line["hard_tokens"])


def _said(answer: httpx.Response, *, stream: bool) -> tuple[Json, str]:
    """The usage, and the answer's text."""
    assert answer.status_code == 200, answer.text
    if not stream:
        body = answer.json()
        assert body["choices"][0]["finish_reason"] == "stop"
        return body["usage"], body["choices"][0]["message"]["content"]
    chunks = events(answer)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    return chunks[-1]["usage"], text


# --- the prefix cache ----------------------------------------------------------------------------

LONG = "Why is the sky blue, and what would it take to make it green? " * 40
CACHING = msgspec.structs.replace(FAST, prefix_blocks=1_000)


@one_loop
@pytest.mark.parametrize(
    ("sharing", "text", "hits"),
    [
        (PrefixSharing.USER, "tenants: {}", (True, False, False)),
        (PrefixSharing.TENANT, "tenants: {}", (True, True, False)),
        (PrefixSharing.ALL, "tenants: {}", (True, True, True)),
        (PrefixSharing.TENANT, "default: {prefix_sharing: all}", (True, True, True)),
        (PrefixSharing.ALL, "tenants: {bob: {prefix_sharing: tenant}}", (True, True, False)),
    ],
)
async def test_who_shares_blocks_of_equal_prompts_is_the_operators_choice(
    tokenizer: Tokenizer,
    tmp_path: Path,
    sharing: PrefixSharing,
    text: str,
    hits: tuple[bool, bool, bool],
) -> None:
    api = replace(api_of(tmp_path, text), prefix_sharing=sharing)
    async with tenants_stack(tokenizer, tmp_path, text, CACHING, api=api) as it:

        async def asked(key: str, user: str) -> tuple[bool, str]:
            """Whether the engine had its blocks, and the salt."""
            answer = await it.post(f"SKIP SAY: so. {LONG}", key=key, user_id=user)
            hit_tokens: int = answer.json()["usage"]["prompt_cache_hit_tokens"]
            return hit_tokens > 0, it.decoded.cache_salt

        first = await asked("sk-ada", "u")
        assert first[0] is False
        others = [
            await asked("sk-ada", "u"),
            await asked("sk-ada", "v"),
            await asked("sk-bob", "u"),
        ]
    assert tuple(hit for hit, _ in others) == hits
    ids = it.decoded.prompt_ids
    keys = set(prompt_keys(ids, 64, first[1]))
    assert keys
    for hit, salt in others:  # routing would predict the same
        shared = keys & set(prompt_keys(ids, 64, salt))
        assert shared == (keys if hit else set())
