"""The gateway against fake engines over real token channels and a real HTTP server, one process."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.gateway.decision_log import replay
from orchestrator.routing import Choice
from orchestrator.spec import (
    AdmissionSpec,
    EngineKind,
    GatewaySpec,
    HandoffSpec,
    KvHandoff,
    Spec,
    StepCosts,
    local_spec,
)
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

MODEL = "DeepSeek-R1"
QUESTION = "Why is the sky blue, and what would it take to make it green on a Tuesday afternoon?"
FAST = FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.0)


@asynccontextmanager
async def stack(
    tokenizer: Tokenizer,
    logs: Path,
    ranks: list[Rank],
    change: Callable[[Spec], Spec] = lambda spec: spec,
) -> AsyncIterator[GatewayStack]:
    spec = change(local_spec(EngineKind.FAKE, 3, "unused"))
    async with gateway_stack(spec, {spec.models[0].name: tokenizer}, ranks, logs) as running:
        yield running


def pair(spec: FakeEngineSpec = FAST) -> list[Rank]:
    return [Rank(Role.PREFILL, "p", spec), Rank(Role.DECODE, "d", spec)]


def decisions(running: GatewayStack) -> list[dict[str, object]]:
    lines = (running.logs / "decisions").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_streams_reasoning_then_answer_over_a_transfer(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        reasoning, answer, finish = await running.ask(QUESTION)
        assert reasoning
        assert answer
        assert finish == "stop"
        assert running.ranks["p"].engine.load().steps > 0
        path = next(d for d in decisions(running) if d["event"] == "path")
        assert (path["decision"], path["reason"]) == ("transfer", "long_prompt")


@pytest.mark.parametrize("kv", [KvHandoff.PUSH, KvHandoff.PULL_BOUND])
async def test_kv_that_is_pushed_or_bound_to_its_peer_gives_the_same_answer(
    tokenizer: Tokenizer, tmp_path: Path, kv: KvHandoff
) -> None:
    def paired(spec: Spec) -> Spec:
        return replace(spec, handoff=replace(spec.handoff, kv=kv))

    async with stack(tokenizer, tmp_path / "pull", pair()) as running:
        pulled = await running.ask(QUESTION)
    ranks = [*pair(), Rank(Role.DECODE, "d2", FAST)]
    async with stack(tokenizer, tmp_path / "pair", ranks, paired) as running:
        answers = await asyncio.gather(*(running.ask(QUESTION) for _ in range(6)))
        assert set(answers) == {pulled}
        legs = [d["question"] for d in decisions(running) if d["event"] == "routing"]
        assert [leg["leg"] for leg in legs if isinstance(leg, dict)] == ["prefill", "decode"] * 6
        assert running.ranks["p"].engine.load().kv_usage == 0, "all that was held has been read"


async def test_a_client_that_leaves_between_the_legs_leaves_no_blocks_behind(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    slow = FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.005)
    async with stack(tokenizer, tmp_path, pair(slow)) as running:
        prefill = running.ranks["p"].engine
        for wait_s in (0.05, 0.1, 0.15, 0.2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await running.ask(QUESTION)
        await until(lambda: prefill.load().running + prefill.load().waiting == 0)
        await until(lambda: prefill.load().kv_usage == 0)


async def test_the_body_holds_what_the_stream_held(tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        reasoning, answer, _ = await running.ask(QUESTION)
        whole = await running.openai.chat.completions.create(
            model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}]
        )
        message = whole.choices[0].message
        assert message.content == answer
        assert message.model_extra is not None
        assert message.model_extra["reasoning_content"] == reasoning
        assert whole.usage is not None
        details = whole.usage.completion_tokens_details
        assert details is not None
        assert details.reasoning_tokens is not None
        assert 0 < details.reasoning_tokens < whole.usage.completion_tokens


async def test_a_short_prompt_is_prefilled_in_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        body = {"model": "deepseek-reasoner", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await running.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        path = next(d for d in decisions(running) if d["event"] == "path")
        assert (path["decision"], path["reason"]) == ("in_place", "short_prompt")


async def test_where_ranks_costs_are_known_the_cheaper_way_to_the_kv_is_taken(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def dear(spec: Spec) -> Spec:
        costs = StepCosts(0.001, 1e-5, transfer_base_s=1.0)
        model = spec.models[0]
        pools = tuple(replace(pool, costs=costs) for pool in model.pools)
        return replace(spec, models=(replace(model, pools=pools),))

    async with stack(tokenizer, tmp_path, pair(), dear) as running:
        await running.ask(QUESTION)
        path = next(d for d in decisions(running) if d["event"] == "path")
        assert (path["decision"], path["reason"]) == ("in_place", "dear_transfer")
        prices = path["prices"]
        assert isinstance(prices, dict)
        assert prices["in_place_s"] < prices["transfer_s"] - 0.9


async def test_a_session_that_the_client_names_is_known_to_routing(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        for _ in range(2):
            await running.ask(QUESTION, extra_headers={"X-Session-Id": "mine"})
        legs = [d["question"] for d in decisions(running) if d["event"] == "routing"]
        ranks = [leg["session_rank"] for leg in legs if isinstance(leg, dict)]
        assert ranks == [None, None, "d/0", "d/0"]


async def test_a_decode_rank_that_dies_in_mid_stream_is_survived_without_a_scratch(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    slow = replace_step(0.01)
    ranks = [*pair(slow), Rank(Role.DECODE, "d2", slow)]
    async with stack(tokenizer, tmp_path, ranks) as running:
        undisturbed = await running.ask(QUESTION)
        async with asyncio.TaskGroup() as group:
            disturbed = group.create_task(running.ask(QUESTION))
            busy = [running.ranks["d"], running.ranks["d2"]]
            await until(lambda: any(rank.engine.load().running for rank in busy))
            await asyncio.sleep(0.1)  # some tokens in
            for rank in busy:
                if rank.engine.load().running:
                    rank.server.close("the test kills it")
        assert disturbed.result() == undisturbed


async def test_without_any_rank_left_the_stream_ends_well_formed_and_says_why(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def impatient(spec: Spec) -> Spec:
        return replace(spec, handoff=HandoffSpec(resume_wait_s=0.2))

    async with stack(tokenizer, tmp_path, pair(replace_step(0.01)), impatient) as running:
        async with asyncio.TaskGroup() as group:
            cut = group.create_task(running.ask(QUESTION))
            await until(lambda: running.ranks["d"].engine.load().running > 0)
            await asyncio.sleep(0.1)
            running.ranks["d"].server.close("the test kills it")
        reasoning, _, finish = cut.result()
        assert reasoning
        assert finish == "insufficient_system_resource"
        health = await running.http.get("/health")
        assert health.status_code == 503
        assert health.json() == {"ready": False, "ranks": {MODEL: {"prefill": 1, "decode": 0}}}


async def test_a_client_that_leaves_frees_the_engine(tokenizer: Tokenizer, tmp_path: Path) -> None:
    endless = FakeEngineSpec(step_s=0.005, thought_tokens=100_000)
    async with stack(tokenizer, tmp_path, pair(endless)) as running:
        engine = running.ranks["d"].engine
        for stream in (True, False):
            body = {
                "model": "deepseek-reasoner",
                "stream": stream,
                "messages": [{"role": "user", "content": QUESTION}],
            }
            async with asyncio.TaskGroup() as group:
                client = group.create_task(running.http.post("/chat/completions", json=body))
                await until(lambda: engine.load().running == 1)
                client.cancel()
            await until(lambda: engine.load().running == 0)


async def test_more_than_the_queue_holds_is_refused_with_a_time_to_come_back(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def narrow(spec: Spec) -> Spec:
        channel = replace(spec.channel, max_requests=1)
        return replace(spec, channel=channel, admission=AdmissionSpec(queue_requests_max=1))

    async with stack(tokenizer, tmp_path, pair(replace_step(0.02)), narrow) as running:
        body = {"model": "deepseek-reasoner", "messages": [{"role": "user", "content": "Hi"}]}
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(running.http.post("/chat/completions", json=body))
                for _ in range(4)
            ]
        answers = [task.result() for task in asked]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["type"] == "service_unavailable_error"


async def test_a_wait_is_bridged_by_keep_alives(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def chatty(spec: Spec) -> Spec:
        return replace(spec, gateway=GatewaySpec(keep_alive_s=0.05))

    slow = FakeEngineSpec(step_s=0.001, prefill_s_per_token=0.02)
    async with stack(tokenizer, tmp_path, pair(slow), chatty) as running:
        for stream, sign in ((True, b": keep-alive\n\n"), (False, b"\n")):
            body = {
                "model": "deepseek-reasoner",
                "stream": stream,
                "messages": [{"role": "user", "content": QUESTION}],
            }
            answer = await running.http.post("/chat/completions", json=body)
            assert answer.status_code == 200
            assert answer.content.startswith(sign)
        assert (await running.ask(QUESTION))[2] == "stop", "the official client reads over them"


async def test_every_routing_decision_replays_from_its_log_line(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ranks = [*pair(), Rank(Role.DECODE, "d2", FAST)]
    async with stack(tokenizer, tmp_path, ranks) as running:
        for _ in range(3):
            await running.ask(QUESTION)
        routed = [d for d in decisions(running) if d["event"] == "routing"]
    assert len(routed) == 6
    for line in routed:
        choice = replay(line)
        assert isinstance(choice, Choice)
        assert (choice.rank_id, choice.reason) == (line["decision"], line["reason"])


async def test_a_prompt_goes_where_it_was_computed_before(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ranks = [*pair(), Rank(Role.PREFILL, "p2", FAST), Rank(Role.PREFILL, "p3", FAST)]
    async with stack(tokenizer, tmp_path, ranks) as running:
        for _ in range(4):
            await running.ask(QUESTION * 20)
        routed = [d for d in decisions(running) if d["event"] == "routing"]
    prefilled = [d for d in routed if d["role"] == "prefill"]
    assert len({str(d["decision"]) for d in prefilled}) == 1
    assert [d["reason"] for d in prefilled] == ["tie", "prefix", "prefix", "prefix"]


async def test_a_rank_with_another_block_size_is_refused_with_the_two_values(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    other = Rank(Role.DECODE, "d2", FakeEngineSpec(block_size=16))
    async with stack(tokenizer, tmp_path, pair()) as running:
        log = running.logs / "log"
        running.models.update_pool(MODEL, Role.DECODE, [await other.start()])
        try:
            await until(lambda: "rank_refused" in log.read_text())
            health = await running.http.get("/health")
        finally:
            await other.stop()
    assert health.json()["ranks"][MODEL]["decode"] == 0
    line = next(line for line in log.read_text().splitlines() if "rank_refused" in line)
    cause = json.loads(line)["cause"]
    assert "d2/0 has block size 16, the others of its model have 64" in cause


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/chat/completions", None, 405),
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"\xff\xfe", 400),
        ("POST", "/chat/completions", b"[]", 422),
        (
            "POST",
            "/chat/completions",
            b'{"model":"gpt","messages":[{"role":"user","content":"x"}]}',
            400,
        ),
    ],
)
async def test_what_cannot_be_served_is_an_error_in_deepseeks_shape(
    tokenizer: Tokenizer, tmp_path: Path, method: str, path: str, body: bytes | None, status: int
) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        answer = await running.http.request(method, path, content=body)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert error["message"]


async def test_models_health_and_metrics_answer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    async with stack(tokenizer, tmp_path, pair()) as running:
        await running.ask(QUESTION)
        models = await running.openai.models.list()
        names = ["deepseek-reasoner", "DeepSeek-R1"]
        assert [model.id for model in models.data] == names
        for name in (*names, "deepseek-ai/DeepSeek-R1"):
            assert (await running.openai.models.retrieve(name)).id == name
        unknown = await running.http.get("/v1/models/gpt")
        assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "Model Not Exist")
        health = await running.http.get("/health")
        assert health.json() == {"ready": True, "ranks": {MODEL: {"prefill": 1, "decode": 1}}}
        metrics = (await running.http.get("/metrics")).text
        assert 'r1_requests_total{model="DeepSeek-R1",class="",outcome="stop"} 1.0' in metrics
        assert 'r1_ranks_open{model="DeepSeek-R1",role="decode"} 1.0' in metrics


def replace_step(step_s: float) -> FakeEngineSpec:
    return FakeEngineSpec(step_s=step_s, prefill_s_per_token=0.0)
