"""What the endpoints do around a request, end to end: checks in order, keys, models, ends.

The shared gateway serves R1-0528 with prefill and decode apart and V3-0324 beside it, to the
accounts of a key file; what needs other settings has a gateway of its own.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from orchestrator.codec import Tokenizer
from orchestrator.core import KvSource, Role
from orchestrator.engines import FakeEngineSpec, Submit
from orchestrator.engines.scripted_model import ScriptedModel
from orchestrator.gateway import key_line
from orchestrator.spec import (
    AdmissionSpec,
    ApiProfile,
    ApiSpec,
    EngineKind,
    EngineSpec,
    GatewaySpec,
    HandoffSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until

Json = dict[str, Any]
PATH = "/chat/completions"
R1, V3 = "DeepSeek-R1-0528", "DeepSeek-V3-0324"
FAST = FakeEngineSpec(step_s=0.0, prefill_s_per_token=0.0)
ENGINE = EngineSpec(kind=EngineKind.FAKE)
APART = (PoolSpec(Role.PREFILL), PoolSpec(Role.DECODE))
BOTH = (
    ModelSpec("unused", APART, R1, engine=ENGINE),
    ModelSpec("unused", (PoolSpec(Role.UNIFIED),), V3, engine=ENGINE),
)
R1_ALONE = (ModelSpec("unused", (PoolSpec(Role.UNIFIED),), R1, engine=ENGINE),)
V3_ALONE = (BOTH[1],)
one_loop = pytest.mark.asyncio(loop_scope="module")  # the shared gateway's


@dataclass
class Stack:
    """A gateway, and what reached its engines."""

    running: GatewayStack
    submits: list[Submit] = field(default_factory=list)

    @property
    def decoded(self) -> Submit:
        """The last submit that drew an answer."""
        return next(s for s in reversed(self.submits) if s.kv_source is not KvSource.PRODUCE)

    def running_now(self) -> int:
        return sum(rank.engine.load().running for rank in self.running.ranks.values())

    async def post(
        self, question: str = "Hi", *, key: str = "sk-ada", path: str = PATH, **fields: object
    ) -> httpx.Response:
        return await self.running.http.post(
            path, json=body(question, **fields), headers={"authorization": f"Bearer {key}"}
        )

    @asynccontextmanager
    async def stream(
        self, question: str, *, key: str = "sk-ada", **fields: object
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream that has begun."""
        headers = {"authorization": f"Bearer {key}"}
        asked = body(question, stream=True, **fields)
        async with self.running.http.stream("POST", PATH, json=asked, headers=headers) as answer:
            assert answer.status_code == 200
            yield answer.aiter_lines()

    async def metrics(self) -> str:
        return (await self.running.http.get("/metrics")).text


def paced(step_s: float = 0.001, prefill_s_per_token: float = 0.0) -> FakeEngineSpec:
    return FakeEngineSpec(step_s=step_s, prefill_s_per_token=prefill_s_per_token)


def body(question: str, **fields: object) -> Json:
    messages = [{"role": "user", "content": question}]
    return {"model": "deepseek-reasoner", "messages": messages} | fields


@asynccontextmanager
async def stack(
    tokenizer: Tokenizer,
    logs: Path,
    models: Sequence[ModelSpec] = BOTH,
    pace: FakeEngineSpec = FAST,
    *,
    spare: bool = False,  # a second rank of each pool that decodes
    **parts: object,
) -> AsyncIterator[Stack]:
    spec = replace(Spec(models=tuple(models)), **parts)  # type: ignore[arg-type]
    submits: list[Submit] = []

    def author_of(model: ModelSpec) -> Any:  # noqa: ANN401  # an Author
        scripted = ScriptedModel(tokenizer, opens_thoughts=model.profile.thinks)

        def author(submit: Submit) -> Sequence[int]:
            submits.append(submit)
            return scripted(submit)

        return author

    ranks = [
        Rank(pool.role, f"{model.name}-{pool.role}-{at}", pace, model=model.name, author=author)
        for model in models
        for author in [author_of(model)]
        for pool in model.pools
        for at in range(2 if spare and pool.role is not Role.PREFILL else 1)
    ]
    tokenizers = {model.name: tokenizer for model in models}
    async with gateway_stack(spec, tokenizers, ranks, logs) as running:
        yield Stack(running, submits)


def write_keys(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


ADA, BOB, EVE = key_line("ada", "sk-ada"), key_line("bob", "sk-bob"), key_line("eve", "sk-eve")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("shared")
    keys = write_keys(folder / "keys", ADA, f"{BOB} suspended", f"{EVE} requests=1")
    async with stack(tokenizer, folder, api=ApiSpec(keys_path=keys)) as running:
        yield running


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and message of a refusal in the official shape."""
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert list(answer.json()) == ["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["param"], error["code"]) == (None, "invalid_request_error")
    return answer.status_code, error["message"]


def events(answer: httpx.Response) -> list[Json]:
    """The chunks of a stream."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


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
    keys = write_keys(tmp_path / "keys", ADA, f"{EVE} requests=1")
    spec = Spec(models=R1_ALONE)
    parts: Json = {
        "api": ApiSpec(keys_path=keys),
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
async def test_a_suspended_account_may_look_and_not_ask(shared: Stack) -> None:
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
async def test_an_account_with_all_its_requests_open_waits_for_one_to_end(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", f"{EVE} requests=1", ADA)
    api = ApiSpec(keys_path=keys)
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
async def test_keys_change_without_a_restart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    api = ApiSpec(keys_path=write_keys(path, ADA))
    async with stack(tokenizer, tmp_path, V3_ALONE, api=api) as it:
        say: Json = {"question": "SAY: Yes.", "model": "deepseek-chat"}
        assert (await it.post(**say)).status_code == 200
        write_keys(path, EVE, f"{BOB} suspended")
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


# --- fill in the middle --------------------------------------------------------------------------


def fim(shared: Stack, **fields: object) -> Any:  # noqa: ANN401  # a coroutine
    asked = {"model": "deepseek-chat", "prompt": "SAY: a = 1"} | fields
    headers = {"authorization": "Bearer sk-ada"}
    return shared.running.http.post("/beta/completions", json=asked, headers=headers)


@one_loop
async def test_the_middle_is_filled_in_whole_and_streamed(
    shared: Stack, tokenizer: Tokenizer
) -> None:
    control = tokenizer.control
    prompt, suffix = "def f():", "print(f())"
    whole = (await fim(shared, prompt=prompt, suffix=suffix)).json()
    ids = shared.decoded.prompt_ids
    assert ids[:2] == (control.begin_of_sentence, control.fim_begin)
    assert ids[-1] == control.fim_end
    assert tokenizer.decode(ids[2 : ids.index(control.fim_hole or 0)]) == prompt
    assert tokenizer.decode(ids[ids.index(control.fim_hole or 0) + 1 : -1]) == suffix
    keys = ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert list(whole) == keys
    (choice,) = whole["choices"]
    assert list(choice) == ["text", "index", "logprobs", "finish_reason"]
    assert choice == choice | {"index": 0, "logprobs": None, "finish_reason": "stop"}
    assert choice["text"] == "\n    return result\n"
    assert whole["object"] == "text_completion"
    assert "completion_tokens_details" not in whole["usage"]
    answer = await fim(shared, prompt=prompt, suffix=suffix, stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = events(answer)
    assert all(list(chunk) == keys for chunk in chunks)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@one_loop
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
async def test_its_logprobs_are_parallel_lists_over_the_text(
    shared: Stack, stream: bool, echo: bool
) -> None:
    prompt = "Eins — zwei"
    answer = await fim(shared, prompt=prompt, echo=echo, logprobs=2, stream=stream)
    chunks = events(answer) if stream else [answer.json()]
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["text"] for choice in choices)
    assert text.startswith(prompt) is echo
    lists: dict[str, list[Any]] = {}
    for choice in choices:
        for name, values in (choice["logprobs"] or {}).items():
            lists.setdefault(name, []).extend(values)
    assert list(lists) == ["text_offset", "token_logprobs", "tokens", "top_logprobs"]
    assert "".join(lists["tokens"]) == text.removeprefix(prompt if echo else "")
    for offset, token in zip(lists["text_offset"], lists["tokens"], strict=True):
        assert text[offset:].startswith(token)
    assert {len(top) for top in lists["top_logprobs"]} == {2}


@one_loop
async def test_what_it_does_not_do_is_refused(shared: Stack) -> None:
    for name in ("deepseek-reasoner", R1):
        status, message = error_of(await fim(shared, model=name))
        assert (status, message) == (400, f"{name} does not support fill in the middle")
    assert error_of(await fim(shared, model="gpt")) == (400, "Model Not Exist")
    for fields, name in (
        ({"max_tokens": 4_097}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ):
        status, message = error_of(await fim(shared, **fields))
        assert status == 400
        assert name in message
    assert (await fim(shared, prompt=None)).status_code == 422


# --- logprobs ------------------------------------------------------------------------------------

SAID = "Ça va 🙂 — 好的, naïve 𓀀nicode\u2028end"


@one_loop
@pytest.mark.parametrize("stop", [None, "end", "zzz"])
async def test_logprobs_cover_the_content_token_by_token(
    shared: Stack, tokenizer: Tokenizer, stop: str | None
) -> None:
    fields: Json = {"model": "deepseek-chat", "logprobs": True, "top_logprobs": 3, "stop": stop}
    whole = (await shared.post(f"SAY: {SAID}", **fields)).json()["choices"][0]
    streamed = [
        event["choices"][0]
        for event in events(await shared.post(f"SAY: {SAID}", stream=True, **fields))
    ]
    content = whole["message"]["content"]
    assert content == SAID.removesuffix(stop or "")
    scored = whole["logprobs"]["content"]
    assert content == "".join(choice["delta"].get("content") or "" for choice in streamed)
    chunks = [choice for choice in streamed if choice["logprobs"]]
    assert scored == [token for choice in chunks for token in choice["logprobs"]["content"]]
    assert b"".join(bytes(token["bytes"]) for token in scored) == content.encode()
    assert len(scored) == len(tokenizer.encode(content))
    for token in scored:
        assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0]["bytes"] == token["bytes"]
    if stop is None:
        ahead = b""  # of the text: half a character of a token that has come
        for choice in chunks:  # otherwise each chunk has the tokens whose text it has
            data = b"".join(bytes(token["bytes"]) for token in choice["logprobs"]["content"])
            ahead = (ahead + data).removeprefix(choice["delta"]["content"].encode())
            assert len(ahead) < 4


@one_loop
async def test_a_tool_call_has_none_streamed_or_whole(shared: Stack) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    fields: Json = {"model": "deepseek-chat", "logprobs": True, "tools": [tool]}
    whole = (await shared.post("call f", **fields)).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["logprobs"] is None
    chunks = events(await shared.post("call f", stream=True, **fields))
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)


@one_loop
async def test_the_reasoner_has_no_logprobs(shared: Stack) -> None:
    asked: list[Json] = [{"logprobs": True}, {"top_logprobs": 0}]
    for fields in asked:
        status, message = error_of(await shared.post(**fields))
        assert (status, message.partition("`")[0]) == (
            400,
            "deepseek-reasoner does not support the parameter ",
        )


# --- ends ----------------------------------------------------------------------------------------


@one_loop
async def test_at_launch_max_tokens_counted_the_answer_alone(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    api = ApiSpec(profile=ApiProfile.DEEPSEEK_2501)
    async with stack(tokenizer, tmp_path, R1_ALONE, api=api) as it:
        for stream in (False, True):
            answer = await it.post("THINK 40 LONG 50", max_tokens=5, stream=stream)
            last = events(answer)[-1] if stream else answer.json()
            assert last["choices"][0]["finish_reason"] == "length"
            usage = last["usage"]
            thought = usage["completion_tokens_details"]["reasoning_tokens"]
            assert thought >= 40
            assert 0 <= usage["completion_tokens"] - thought - 5 <= 1  # the tag that opens it
            if not stream:
                content = last["choices"][0]["message"]["content"]
                assert len(tokenizer.encode(f"\n\n{content}")) == 5
        sampling = it.decoded.sampling
        assert (sampling.max_tokens, sampling.thinking_budget) == (32_768 + 5, 32_768)
        await until(lambda: it.running_now() == 0)


@one_loop
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_after_keep_alives_is_a_well_formed_completion(
    tokenizer: Tokenizer, tmp_path: Path, stream: bool
) -> None:
    parts: Json = {
        "gateway": GatewaySpec(keep_alive_s=0.03),
        "handoff": HandoffSpec(resume_wait_s=0.1),
    }
    silent = paced(prefill_s_per_token=0.02)
    async with stack(tokenizer, tmp_path, V3_ALONE, silent, **parts) as it:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(
                it.post("LONG 900 " + "word " * 30, model="deepseek-chat", stream=stream)
            )
            await until(lambda: it.running_now() == 1)
            await asyncio.sleep(0.2)
            it.running.ranks[f"{V3}-unified-0"].server.close("the test kills it")
        answer = asked.result()
        assert answer.status_code == 200
        assert answer.text.startswith(": keep-alive\n\n" if stream else "\n")
        last = events(answer)[-1] if stream else answer.json()
        assert last["choices"][0]["finish_reason"] == "insufficient_system_resource"
        assert last["usage"]["completion_tokens"] == 0
        assert last["choices"][0]["delta" if stream else "message"]["content"] == ""


async def kill_busy(it: Stack) -> None:
    for name, rank in it.running.ranks.items():
        if "prefill" not in name and rank.engine.load().running:
            rank.server.close("the test kills it")


@one_loop
async def test_an_answer_that_a_grammar_holds_is_not_continued_elsewhere_but_its_thought_is(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    wanted = {"type": "json_object"}
    question = "THINK 9 json: one two three four five six seven eight nine ten eleven twelve"
    parts: Json = {"handoff": HandoffSpec(resume_wait_s=0.3)}
    pace = paced(step_s=0.015)
    for part in ("reasoning_content", "content"):
        logs = tmp_path / part
        logs.mkdir()
        async with stack(tokenizer, logs, R1_ALONE, pace, spare=True, **parts) as it:
            undisturbed = await it.post(question, response_format=wanted)
            message = undisturbed.json()["choices"][0]["message"]
            texts = {"reasoning_content": "", "content": ""}
            finish, killed = "", False
            async with it.stream(question, response_format=wanted) as lines:
                async for line in lines:
                    if not line.startswith("data: {"):
                        continue
                    choice = json.loads(line[6:])["choices"][0]
                    for name in texts:
                        texts[name] += choice["delta"].get(name) or ""
                    finish = choice["finish_reason"] or finish
                    if texts[part] and not killed:
                        killed = True
                        await kill_busy(it)
            assert killed
            if part == "content":
                assert finish == "insufficient_system_resource"
                assert message["content"].startswith(texts["content"])
                assert texts["content"] != message["content"]
            else:
                assert finish == "stop"
                assert texts == {name: message[name] for name in texts}
                assert json.loads(texts["content"])
                resumed = f'r1_requests_resumed_total{{model="{R1}"}} 1.0'
                assert resumed in await it.metrics()


@one_loop
async def test_json_that_is_none_is_counted(shared: Stack) -> None:
    counter = f'r1_invalid_json_total{{model="{V3}"}}'
    fields: Json = {"model": "deepseek-chat", "response_format": {"type": "json_object"}}
    answer = await shared.post("json: 3", **fields)
    json.loads(answer.json()["choices"][0]["message"]["content"])
    cut = await shared.post('json RAW: {"a": 1', max_tokens=2, **fields)
    assert cut.json()["choices"][0]["finish_reason"] == "length"
    assert counter not in await shared.metrics(), "what is cut off is nobody's fault"
    await shared.post('json RAW: {"a": 1', **fields)
    assert f"{counter} 1.0" in await shared.metrics()


@one_loop
async def test_nothing_is_left_behind(shared: Stack) -> None:
    """After all the tests above: no slot held, no passage open."""
    await until(lambda: shared.running_now() == 0)
    metrics = await shared.metrics()
    for name in (R1, V3):
        assert f'r1_requests_in_flight{{model="{name}"}} 0.0' in metrics
        assert f'r1_requests_queued{{model="{name}"}} 0.0' in metrics
        served = shared.running.models.served(shared.running.models.spec.model(name))
        assert not served.service._passages
