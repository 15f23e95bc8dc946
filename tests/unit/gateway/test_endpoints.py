"""What the endpoints do around a request: checks in their order, models, paths.

The shared gateway serves R1-0528 with prefill and decode apart and V3-0324 beside it, to the
tenants of a key file; what needs other settings has a gateway of its own.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.spec import (
    AdmissionSpec,
    ApiSpec,
    Spec,
)
from tests.gateway_stack import until
from tests.scripted_gateway import (
    ADA,
    EVE,
    PATH,
    R1,
    R1_ALONE,
    V3,
    Json,
    Stack,
    body,
    error_of,
    events,
    one_loop,
    paced,
    stack,
    write_keys,
    write_tenants,
)

# --- the order of checks -------------------------------------------------------------------------

LONG = "word " * 132_000


@one_loop
@pytest.mark.parametrize(
    ("key", "content", "status", "said"),
    [
        ("sk-nobody", b"{", 401, "Authentication Fails"),
        ("sk-bob", b"{", 402, "Insufficient Balance"),
        ("sk-ada", b"{", 400, "as JSON"),
        ("sk-ada", b"[]", 422, "Failed to deserialize the JSON body into the target type"),
        ("sk-ada", {"model": "gpt", "messages": 1}, 422, "messages: Expected `array`"),
        ("sk-ada", {"model": "gpt", "max_tokens": 0}, 400, "Model Not Exist"),
        ("sk-ada", {"max_tokens": 0, "tool_choice": "required"}, 400, "Invalid max_tokens"),
        ("sk-ada", {"tool_choice": "required", "question": LONG}, 400, "Invalid tool_choice"),
        ("sk-ada", {"question": LONG}, 400, "maximum context length is 131072 tokens"),
    ],
)
async def test_of_several_faults_the_first_in_the_official_order_is_told(
    shared: Stack, key: str, content: bytes | Json, status: int, said: str
) -> None:
    if isinstance(content, dict):
        content = json.dumps(body(**({"question": "Hi"} | content))).encode()
    headers = {"authorization": f"Bearer {key}"}
    before = len(shared.submits)
    for path in (PATH, f"/v1{PATH}", f"/beta{PATH}"):
        answer = await shared.running.http.post(path, content=content, headers=headers)
        found, message = error_of(answer)
        assert found == status
        assert said in message
    assert len(shared.submits) == before


@one_loop
async def test_that_there_is_no_room_is_told_last_of_all(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    api = ApiSpec(
        keys_path=write_keys(tmp_path / "keys", ADA, EVE),
        tenants_path=write_tenants(tmp_path / "tenants.yaml", "tenants: {eve: {requests_max: 1}}"),
    )
    spec = Spec(models=R1_ALONE)
    parts: Json = {
        "api": api,
        "channel": replace(spec.channel, max_requests=1),
        "admission": AdmissionSpec(queue_requests_max=0),
    }
    async with stack(tokenizer, tmp_path, R1_ALONE, paced(step_s=0.01), **parts) as it:
        async with it.stream("LONG 9000", key="sk-eve") as lines:
            await anext(lines)
            assert error_of(await it.post(LONG, key="sk-eve"))[0] == 400
            assert error_of(await it.post("Hi", key="sk-eve"))[0] == 429
            full = await it.post("Hi")
            assert error_of(full) == (503, "The server is overloaded, please try again later")
            assert int(full.headers["retry-after"]) > 0
        await until(lambda: it.running_now() == 0)
        assert (await it.post("THINK 1 LONG 1")).status_code == 200


# --- models --------------------------------------------------------------------------------------


@one_loop
@pytest.mark.parametrize(
    ("name", "thinking", "thinks", "suppressed"),
    [
        ("deepseek-reasoner", None, True, False),
        ("deepseek-reasoner", "enabled", True, False),
        ("deepseek-reasoner", "disabled", False, False),
        ("deepseek-chat", None, False, False),
        ("deepseek-chat", "enabled", True, False),
        (R1, "enabled", True, False),
        (R1, "disabled", False, True),
        (f"deepseek-ai/{R1}", None, True, False),
        (V3, None, False, False),
        (V3, "disabled", False, False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_each_model_answers_to_its_names(
    shared: Stack, name: str, thinking: str | None, thinks: bool, suppressed: bool, stream: bool
) -> None:
    switch = None if thinking is None else {"type": thinking}
    answer = await shared.post("SAY: Yes.", model=name, thinking=switch, stream=stream)
    assert answer.status_code == 200
    assert answer.headers.get("x-r1-thinking") == ("suppressed" if suppressed else None)
    chunks = events(answer) if stream else [answer.json()]
    assert {chunk["model"] for chunk in chunks} == {name}
    parts = [chunk["choices"][0]["delta" if stream else "message"] for chunk in chunks]
    assert "".join(part.get("content") or "" for part in parts) == "Yes."
    assert bool("".join(part.get("reasoning_content") or "" for part in parts)) is thinks
    assert any("reasoning_content" in part for part in parts) is thinks
    assert ("completion_tokens_details" in chunks[-1]["usage"]) is thinks


@one_loop
async def test_a_model_that_does_not_think_does_not_begin_to(shared: Stack) -> None:
    answer = await shared.post(model=V3, thinking={"type": "enabled"})
    message = f"{V3} does not support the parameter `thinking` of type 'enabled'"
    assert error_of(answer) == (400, message)


@one_loop
async def test_each_models_requests_reach_its_own_engines(shared: Stack) -> None:
    def steps() -> dict[str, int]:
        ranks = shared.running.ranks
        return {name: rank.engine.load().steps for name, rank in ranks.items()}

    before = steps()
    await shared.post("a question of more than fifteen tokens, so that it is prefilled elsewhere")
    between = steps()
    await shared.post(model="deepseek-chat")
    after = steps()
    changed = [name for name in before if before[name] != between[name]]
    assert changed == [f"{R1}-prefill-0", f"{R1}-decode-0"]
    assert [name for name in before if between[name] != after[name]] == [f"{V3}-unified-0"]


@one_loop
async def test_the_models_are_listed_and_found_by_every_name(shared: Stack) -> None:
    headers = {"authorization": "Bearer sk-ada"}
    for prefix in ("", "/v1", "/beta", "/beta/v1"):
        listed = (await shared.running.http.get(f"{prefix}/models", headers=headers)).json()
        assert list(listed) == ["object", "data"]
        names = [model["id"] for model in listed["data"]]
        assert names == ["deepseek-reasoner", "deepseek-chat", R1, V3]
        for name in (*names, f"deepseek-ai/{R1}"):
            answer = await shared.running.http.get(f"{prefix}/models/{name}", headers=headers)
            model = answer.json()
            assert list(model)[:4] == ["id", "object", "created", "owned_by"]
            assert (model["id"], model["object"], model["owned_by"]) == (name, "model", "deepseek")
        for name in ("gpt", "", "deepseek-reasoner/x"):
            answer = await shared.running.http.get(f"{prefix}/models/{name}", headers=headers)
            assert error_of(answer) == (404, "Model Not Exist")


# --- paths and methods ---------------------------------------------------------------------------


@one_loop
@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "/completions", 404, None),
        ("POST", f"{PATH}/", 404, None),
        ("GET", "/health/", 404, None),
        ("POST", "/v1/embeddings", 404, None),
        ("GET", PATH, 405, {"POST"}),
        ("HEAD", PATH, 405, {"POST"}),
        ("OPTIONS", PATH, 405, {"POST"}),
        ("PUT", "/beta/completions", 405, {"POST"}),
        ("POST", "/models", 405, {"GET", "HEAD"}),
        ("DELETE", "/models/deepseek-reasoner", 405, {"GET", "HEAD"}),
        ("OPTIONS", "/user/balance", 405, {"GET", "HEAD"}),
        ("POST", "/health", 405, {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_path_or_method_is_refused_in_the_official_shape(
    shared: Stack, method: str, path: str, status: int, allow: set[str] | None
) -> None:
    answer = await shared.running.http.request(method, path)
    assert answer.status_code == status
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert error_of(answer)[1] in {"Not Found", "Method Not Allowed"}
    allowed = answer.headers.get("allow")
    assert (allowed and set(allowed.split(", "))) == allow


@one_loop
async def test_head_is_get_without_the_body(shared: Stack) -> None:
    headers = {"authorization": "Bearer sk-ada"}
    for path in ("/models", "/models/deepseek-chat", "/user/balance", "/health", "/openapi.json"):
        whole = await shared.running.http.get(path, headers=headers)
        head = await shared.running.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
