"""A gateway over scripted models, and what reached its engines; for tests of its endpoints."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import KvSource, Role
from orchestrator.engines import FakeEngineSpec, Submit
from orchestrator.engines.scripted_model import ScriptedModel
from orchestrator.gateway import key_line
from orchestrator.spec import (
    EngineKind,
    EngineSpec,
    ModelSpec,
    PoolSpec,
    Spec,
)
from orchestrator.telemetry.spans import Span
from tests.gateway_stack import GatewayStack, Rank, gateway_stack

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


def write_tenants(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


ADA, BOB, EVE = key_line("ada", "sk-ada"), key_line("bob", "sk-bob"), key_line("eve", "sk-eve")


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


class KeptSpans:
    """A sink that keeps spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def send(self, spans: Sequence[Span]) -> None:
        """As a collector gets them."""
        self.spans += spans

    def close(self) -> None:
        """Nothing is held."""

    def named(self, name: str) -> Span:
        """The only one of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found
