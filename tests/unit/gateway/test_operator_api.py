"""`r1-serve doctor` and `why` against gateways in this process, and what is said to wrong input."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from orchestrator.cli import main
from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.fleet.doctor import SilentFault
from orchestrator.spec import (
    ApiSpec,
    DoctorSpec,
    EngineKind,
    EngineSpec,
    GatewaySpec,
    ModelSpec,
    PoolSpec,
    Spec,
    WhySpec,
)
from tests.gateway_stack import GatewayStack, Rank, gateway_stack
from tests.scripted_gateway import ADA, BOB, write_keys, write_tenants

FAST = FakeEngineSpec(
    step_s=0.001,
    prefill_s_per_token=0.0,
    max_model_len=131_072,
    prefix_blocks=512,
    block_size=16,
    kv_events=True,
)
MODEL = ModelSpec(
    "unused",
    (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE)),
    engine=EngineSpec(kind=EngineKind.FAKE),
)
SPEC = Spec((MODEL,), gateway=GatewaySpec(replicas=1))
QUESTION = "How are you, and why is that so? " * 8


# Metrics of requests, of their SLOs and of what they cost.
COUNTED = (
    *("r1_requests", "r1_request_", "r1_ttft", "r1_itl", "r1_tpot", "r1_slo", "r1_answer"),
    *("r1_output_tokens", "r1_prompt_tokens", "r1_prefill_paths", "r1_paid", "r1_revenue"),
    *("r1_work", "r1_usage", "r1_transfers", "r1_decisions", "r1_stage"),
)


def ranks(fault: SilentFault | None = None) -> list[Rank]:
    faulty = replace_faults(FAST, fault)
    return [
        Rank(Role.PREFILL, "prefill-0", FAST),
        Rank(Role.DECODE, "decode-0", FAST),
        Rank(Role.DECODE, "decode-1", faulty),
    ]


def replace_faults(spec: FakeEngineSpec, fault: SilentFault | None) -> FakeEngineSpec:
    return spec if fault is None else msgspec.structs.replace(spec, faults=(fault,))


@pytest_asyncio.fixture
async def open_api(tokenizer: Tokenizer, tmp_path: Path) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(SPEC, {MODEL.name: tokenizer}, ranks(), tmp_path) as running:
        yield running


async def r1_serve(*arguments: str) -> int:
    return await asyncio.to_thread(main, list(arguments))


async def test_doctor_prints_a_table_and_ends_with_0_where_all_is_well(
    open_api: GatewayStack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await r1_serve("doctor", "--url", open_api.url) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 gateways: 0 wrong" in printed
    for probe in ("transfer", "prefix_routing", "kv_events", "budget", "clock"):
        assert f"  ok    {probe}" in printed, printed


async def test_doctor_says_which_rank_has_what_and_ends_with_1(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = ranks(SilentFault.DECODE_RECOMPUTES)
    async with gateway_stack(SPEC, {MODEL.name: tokenizer}, faulty, tmp_path) as running:
        assert await r1_serve("doctor", "--url", running.url) == 1
        printed = capsys.readouterr().out
        assert "prefill-0/0 → decode-1/0 (decode_recomputes)" in printed
        assert "          do        " in printed
        assert await r1_serve("doctor", "--url", running.url, "--json") == 1
        document = json.loads(capsys.readouterr().out)
        (model,) = document["rounds"][0]["models"]
        (fault,) = [f for f in model["findings"] if f["state"] == "fault"]
        assert fault["fault"] == "decode_recomputes"
        exposed = (await running.http.get("/metrics")).text
        (sample,) = [x for x in exposed.splitlines() if 'fault="decode_recomputes"' in x]
        assert sample.startswith("r1_doctor_fault{")
        assert sample.endswith(" 1.0")
        log = (running.logs / "log").read_text()
        assert log.count('"doctor_found"') == 1, "twice found, once told"


async def test_probes_are_in_no_bill_and_in_no_figure_of_requests(
    open_api: GatewayStack, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (await open_api.http.get("/metrics")).text
    assert await r1_serve("doctor", "--url", open_api.url) == 0
    after = (await open_api.http.get("/metrics")).text

    def requests(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(COUNTED)]

    assert requests(after) == requests(before)
    capsys.readouterr()


async def test_rounds_go_on_by_themselves(tokenizer: Tokenizer, tmp_path: Path) -> None:
    spec = replace(SPEC, doctor=DoctorSpec(every_s=0.05))
    async with gateway_stack(spec, {MODEL.name: tokenizer}, ranks(), tmp_path) as running:
        async with asyncio.timeout(20):
            while (
                'r1_doctor_rounds_total{state="ok"}'
                not in (exposed := (await running.http.get("/metrics")).text)
                and 'r1_doctor_rounds_total{state="unknown"}' not in exposed
            ):
                await asyncio.sleep(0.05)


async def test_why_tells_candidates_terms_and_the_second_choice(
    open_api: GatewayStack, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await open_api.openai.chat.completions.create(
        model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}]
    )
    assert await r1_serve("why", answer.id, "--url", open_api.url, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    whats = [step["what"] for step in told["steps"]]
    assert whats[:3] == ["admission", "path", "routing"]
    assert whats[-1] == "over"
    (decode,) = [s for s in told["steps"] if s["what"] == "routing" and s["leg"] == "decode"]
    assert decode["replayed"] is True
    assert decode["second_cost_s"] >= decode["cost_s"] or decode["reason"] == "tie"
    assert {each["note"] for each in decode["candidates"]} == {"chosen", "second"}
    chosen = next(each for each in decode["candidates"] if each["note"] == "chosen")
    assert sum(chosen["terms"].values()) == pytest.approx(chosen["cost_s"])
    assert told["ttft_s"] < told["total_s"]
    assert QUESTION[:12] not in json.dumps(told)
    assert await r1_serve("why", answer.id, "--url", open_api.url) == 0
    printed = capsys.readouterr().out
    assert "the second choice, decode-" in printed
    assert "first token" in printed


async def test_what_is_unknown_forgotten_or_not_sampled_is_one_message(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(SPEC, why=WhySpec(requests_max=1))
    async with gateway_stack(spec, {MODEL.name: tokenizer}, ranks(), tmp_path) as running:
        first, _ = [
            (
                await running.openai.chat.completions.create(
                    model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}]
                )
            ).id
            for _ in range(2)
        ]
        assert await r1_serve("why", "no-such-id", "--url", running.url) == 1
        assert "is unknown to 1 of 1 gateways" in capsys.readouterr().err
        assert await r1_serve("why", first, "--url", running.url) == 1
        said = capsys.readouterr().err
        assert "was forgotten" in said
        assert "why.requests_max" in said
    spec = replace(SPEC, why=WhySpec(share=0.0))
    async with gateway_stack(spec, {MODEL.name: tokenizer}, ranks(), tmp_path) as running:
        assert await r1_serve("why", first, "--url", running.url) == 1
        assert "why.share" in capsys.readouterr().err


async def test_without_a_gateway_or_with_a_foreign_server_there_is_one_message(
    open_api: GatewayStack, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["why", "some-id"], ["doctor"]):
        assert await r1_serve(*command, "--url", "http://127.0.0.1:1") == 1
        assert "no gateway answers at http://127.0.0.1:1" in capsys.readouterr().err
        assert await r1_serve(*command, "--url", f"{open_api.url}/health/..") == 1
        assert "is no gateway of this version" in capsys.readouterr().err
        assert await r1_serve(*command, "--url", "ftp://x") == 2
        assert "is no URL" in capsys.readouterr().err
    assert await r1_serve("why", "../metrics", "--url", open_api.url) == 2
    assert "is no id of a request" in capsys.readouterr().err


async def test_only_an_operators_key_may_ask(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = ApiSpec(
        keys_path=write_keys(tmp_path / "keys", ADA, BOB),
        tenants_path=write_tenants(tmp_path / "tenants.yaml", "tenants: {bob: {operator: true}}"),
    )
    spec = replace(SPEC, api=api)
    async with gateway_stack(spec, {MODEL.name: tokenizer}, ranks(), tmp_path) as running:
        for command in (["why", "some-id"], ["doctor"]):
            for key, said in (("sk-wrong", "is invalid"), ("sk-ada", "operator: true")):
                assert await r1_serve(*command, "--url", running.url, "--key", key) == 1
                error = capsys.readouterr().err
                assert "does not take this key" in error
                assert said in error
        assert await r1_serve("doctor", "--url", running.url, "--key", "sk-bob") == 0
        assert await r1_serve("why", "no-such-id", "--url", running.url, "--key", "sk-bob") == 1
        assert "is unknown" in capsys.readouterr().err


async def test_each_of_two_gateways_is_asked_behind_a_balancer(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(SPEC, gateway=GatewaySpec(replicas=2))
    both = {MODEL.name: tokenizer}
    async with (
        gateway_stack(spec, both, ranks(), tmp_path / "a", gateway_id="one") as one,
        gateway_stack(spec, both, ranks(), tmp_path / "b", gateway_id="two") as two,
    ):
        answer = await two.openai.chat.completions.create(
            model="deepseek-reasoner", messages=[{"role": "user", "content": QUESTION}]
        )
        urls = ("--url", one.url, "--url", two.url)
        assert await r1_serve("why", answer.id, *urls) == 0
        assert "gateway two" in capsys.readouterr().out
        assert await r1_serve("why", "no-such-id", *urls) == 1
        assert "is unknown to 2 of 2 gateways" in capsys.readouterr().err
        assert await r1_serve("doctor", *urls) == 0
        assert "2 of 2 gateways" in capsys.readouterr().out
        assert await r1_serve("doctor", "--url", one.url) == 3
        assert "give --url of the others too" in capsys.readouterr().out


async def test_who_asks_again_at_once_gets_the_last_round(open_api: GatewayStack) -> None:
    answers = await asyncio.gather(
        *(open_api.http.post("/operator/doctor", params={"run": str(run)}) for run in range(4))
    )
    assert len({answer.json()["run"] for answer in answers}) == 1
    exposed = (await open_api.http.get("/metrics")).text
    assert sum(line.startswith("r1_doctor_rounds_total{") for line in exposed.splitlines()) == 1
