"""Keys, end to end."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.spec import (
    ApiSpec,
)
from tests.gateway_stack import until
from tests.scripted_gateway import (
    ADA,
    BOB,
    EVE,
    PATH,
    R1_ALONE,
    V3_ALONE,
    Json,
    Stack,
    error_of,
    one_loop,
    paced,
    stack,
    write_keys,
    write_tenants,
)

# --- keys ----------------------------------------------------------------------------------------


@one_loop
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Basic YTpi", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Bearer", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Bearer sk-12fcc2", "Authentication Fails, Your api key: ****fcc2 is invalid"),
    ],
)
async def test_without_a_valid_key_no_path_of_the_api_answers(
    shared: Stack, header: str | None, message: str
) -> None:
    headers = {} if header is None else {"authorization": header}
    for path in (PATH, f"/v1{PATH}", f"/beta{PATH}", "/beta/completions"):
        large = bytes(100_000)  # it need not be read to be refused
        answer = await shared.running.http.post(path, content=large, headers=headers)
        assert error_of(answer) == (401, message)
        assert answer.json()["error"]["type"] == "authentication_error"
    for path in ("/models", "/v1/models", "/models/deepseek-reasoner", "/user/balance"):
        answer = await shared.running.http.get(path, headers=headers)
        assert error_of(answer) == (401, message)
    for path in ("/health", "/metrics", "/openapi.json", "/"):
        assert (await shared.running.http.get(path, headers=headers)).status_code == 200


@one_loop
async def test_a_suspended_tenant_may_look_and_not_ask(shared: Stack) -> None:
    refused = await shared.post(key="sk-bob")
    assert error_of(refused) == (402, "Insufficient Balance")
    assert refused.json()["error"]["type"] == "unknown_error"
    for key, available in (("sk-ada", True), ("sk-bob", False)):
        headers = {"authorization": f"Bearer {key}"}
        balance = await shared.running.http.get("/user/balance", headers=headers)
        info = {
            "currency": "USD",
            "total_balance": "0.00",
            "granted_balance": "0.00",
            "topped_up_balance": "0.00",
        }
        assert balance.json() == {"is_available": available, "balance_infos": [info]}


@one_loop
async def test_a_tenant_with_all_its_requests_open_waits_for_one_to_end(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    api = ApiSpec(
        keys_path=write_keys(tmp_path / "keys", EVE, ADA),
        tenants_path=write_tenants(tmp_path / "tenants.yaml", "tenants: {eve: {requests_max: 1}}"),
    )
    async with stack(tokenizer, tmp_path, R1_ALONE, paced(step_s=0.01), api=api) as it:

        async def refused() -> None:
            answer = await it.post(key="sk-eve")
            assert error_of(answer)[0] == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert (await it.post("THINK 1 LONG 1")).status_code == 200, "others go on"

        async with it.stream("THINK 20 LONG 9", key="sk-eve") as lines:
            await anext(lines)
            await refused()
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        for stream in (True, False):  # a request that fails is over too
            assert error_of(await it.post(key="sk-eve", model="gpt", stream=stream))[0] == 400
        async with it.stream("LONG 9000", key="sk-eve") as lines:
            await anext(lines)
            await refused()
        await until(lambda: it.running_now() == 0)  # the client has left
        async with asyncio.TaskGroup() as group:
            whole = group.create_task(it.post("LONG 9000", key="sk-eve"))
            await until(lambda: it.running_now() == 1)
            await refused()
            whole.cancel()
        await until(lambda: it.running_now() == 0)
        assert (await it.post("THINK 1 LONG 1", key="sk-eve")).status_code == 200


@one_loop
async def test_keys_and_tenants_change_without_a_restart(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path, tenants = tmp_path / "keys", tmp_path / "tenants.yaml"
    api = ApiSpec(
        keys_path=write_keys(path, ADA), tenants_path=write_tenants(tenants, "tenants: {}")
    )
    async with stack(tokenizer, tmp_path, V3_ALONE, api=api) as it:
        say: Json = {"question": "SAY: Yes.", "model": "deepseek-chat"}
        assert (await it.post(**say)).status_code == 200
        write_keys(path, EVE, BOB)
        write_tenants(tenants, "tenants: {bob: {suspended: true}}")
        async with asyncio.timeout(10):
            while (await it.post(**say)).status_code != 401:
                await asyncio.sleep(0.05)
        assert (await it.post(key="sk-eve", **say)).status_code == 200
        assert (await it.post(key="sk-bob", **say)).status_code == 402


@one_loop
async def test_requests_of_different_users_never_share_their_kv(
    tokenizer: Tokenizer, tmp_path: Path, shared: Stack
) -> None:
    long = "Why is the sky blue, and what would it take to make it green on a Tuesday afternoon?"

    async def salt(key: str, user: str | None = None, question: str = long) -> str:
        assert (await shared.post(question, key=key, user_id=user)).status_code == 200
        salts = {submit.cache_salt for submit in shared.submits[-2:]}
        assert len(salts) == 1, "the prefill has the same"
        return salts.pop()

    salts = [
        await salt("sk-ada"),
        await salt("sk-ada", "u"),
        await salt("sk-ada", "v"),
        await salt("sk-eve"),
        await salt("sk-eve", "u"),
    ]
    assert len(set(salts)) == len(salts)
    assert all(salts)
    assert salts[1] == await salt("sk-ada", "u", f"{long} Or not?")
    assert all("ada" not in text and len(text) == 64 for text in salts)
    async with stack(tokenizer, tmp_path, V3_ALONE) as it:
        seen = []
        for key, user in (("sk-1", None), ("sk-2", None), ("sk-1", "u"), ("sk-2", "u")):
            await it.post(key=key, model="deepseek-chat", user_id=user)
            seen.append(it.decoded.cache_salt)
        assert seen[:2] == ["", ""], "where everybody may come in, all are one"
        assert seen[2] == seen[3] != ""
