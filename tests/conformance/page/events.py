"""Streams of the official shape, for what no engine does on demand."""

import json
from collections.abc import Mapping


def event(delta: Mapping[str, object], finish: str | None = None, used: object = None) -> str:
    """One chunk, in the shape of the official API."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [choice], "usage": used}
    return f"data: {json.dumps(chunk)}\n\n"


def end(finish: str, used: object) -> str:
    """The last chunk and the end of the stream."""
    return event({"content": "", "reasoning_content": None}, finish, used) + "data: [DONE]\n\n"


def usage(prompt: int, cached: int, thinking: int, answer: int) -> dict[str, object]:
    """The value of `usage`."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": thinking + answer,
        "total_tokens": prompt + thinking + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thinking},
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    }
