"""What tests of the official Python client say and listen to."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel

REASONER = "deepseek-reasoner"
CHAT = "deepseek-chat"
BOTH = pytest.mark.parametrize("model", [REASONER, CHAT])
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather in a location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "clock", "description": "Tell the time"},
}
MIDDLE = "\n    return result\n"  # what the scripted model puts between any two ends
LONG = "THINK 5000"  # 50 s at the pace of `guarded`


class Person(BaseModel):
    """What structured output is asked for."""

    name: str
    age: int


class Weather(BaseModel):
    """Get the weather in a location."""

    location: str


@dataclass
class Collected:
    """A stream, put together as the clients of DeepSeek's documentation do."""

    reasoning: str = ""
    answer: str = ""
    order: list[str] = field(default_factory=list)  # of the parts, a run of equal ones once
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)  # name and arguments
    call_chunks: int = 0
    finish: str | None = None
    usages: list[CompletionUsage | None] = field(default_factory=list)  # one for each chunk
    ids: set[str] = field(default_factory=set)

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Takes the next chunk."""
        (choice,) = chunk.choices
        thought: str = (choice.delta.model_extra or {}).get("reasoning_content") or ""
        self.reasoning += thought
        self.answer += choice.delta.content or ""
        part = "reasoning" if thought else "answer" if choice.delta.content else ""
        for call in choice.delta.tool_calls or ():
            assert call.function is not None
            name, arguments = self.calls.get(call.index, ("", ""))
            name += call.function.name or ""
            self.calls[call.index] = name, arguments + (call.function.arguments or "")
            self.call_chunks += 1
            part = f"call {call.index}"
        if part and self.order[-1:] != [part]:
            self.order.append(part)
        self.finish = choice.finish_reason or self.finish
        self.usages.append(chunk.usage)
        self.ids.add(chunk.id)


def collect(chunks: Iterable[ChatCompletionChunk]) -> Collected:
    """All of a stream."""
    collected = Collected()
    for chunk in chunks:
        collected.add(chunk)
    return collected


def user(text: str) -> list[ChatCompletionMessageParam]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def begun(text: str, **beginning: object) -> list[ChatCompletionMessageParam]:
    """A question, and an answer that is to be continued from its beginning."""
    prefix: Any = {"role": "assistant", "prefix": True} | beginning
    return [*user(text), prefix]


def back(message: ChatCompletionMessage) -> ChatCompletionMessageParam:
    """An answer as most programs send it back: all of it, the reasoning too."""
    said: ChatCompletionMessageParam = message.model_dump(exclude_none=True)  # type: ignore[assignment]
    return said


def calls_of(message: ChatCompletionMessage) -> list[tuple[str, str]]:
    """The names and arguments of the calls."""
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    return [(call.function.name, call.function.arguments) for call in calls]


def thought(message: BaseModel) -> str | None:
    """The reasoning of an answer; None if it has no such field."""
    found: str | None = (message.model_extra or {}).get("reasoning_content")
    return found


def reasoning_tokens(usage: CompletionUsage | None) -> int | None:
    """What the usage says of the reasoning; None if nothing."""
    assert usage is not None
    details = usage.completion_tokens_details
    return None if details is None else details.reasoning_tokens


@asynccontextmanager
async def asynchronous(server: str, key: str = "sk-test") -> AsyncIterator[openai.AsyncOpenAI]:
    """The same client for asyncio."""
    async with openai.AsyncOpenAI(
        base_url=server, api_key=key, max_retries=0, timeout=30
    ) as client:
        yield client
