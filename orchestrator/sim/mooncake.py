"""Traces in Mooncake's format: one JSON object a line, plain or gzipped.

`timestamp` in milliseconds, `input_length` and `output_length` in tokens, and `hash_ids`: one for
each 512 tokens of the prompt; equal ids stand for equal
text. From the FAST'25 release of kvcache-ai/Mooncake.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from orchestrator.core import SpecError

BLOCK_TOKENS = 512  # of the prompt that one hash id stands for

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Line(msgspec.Struct, frozen=True):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: _Count
    hash_ids: list[_Count]


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace; `at_s` counts from the trace's own beginning."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...]


class TraceError(SpecError):
    """The trace cannot be read; the message has the line."""


def read_trace(path: Path, skip: int = 0, most: int | None = None) -> list[TraceRequest]:
    """The requests behind the first `skip` ones, at most so many. Raises TraceError."""
    end = None if most is None else skip + most
    requests: list[TraceRequest] = []
    for number, line in enumerate(islice(_lines(path), end), start=1):
        request = _request(path, number, line)
        if requests and request.at_s < requests[-1].at_s:
            raise _error(path, number, "its timestamp is before the line above it")
        if number > skip:
            requests.append(request)
    if not requests:
        raise TraceError(f"{path} has no request behind the first {skip}", "skip fewer")
    return requests


def _lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw, "rb") if packed else raw as file:
                for line in file:
                    number += 1
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise TraceError(f"cannot read {path} behind line {number}: {cause}", _CURE) from error


_CURE = "give a trace in Mooncake's format, JSON lines, plain or gzipped"


def _request(path: Path, number: int, line: bytes) -> TraceRequest:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _error(path, number, str(error)) from error
    if len(read.hash_ids) * BLOCK_TOKENS < read.input_length:
        raise _error(
            path,
            number,
            f"{len(read.hash_ids)} hash ids for {read.input_length} tokens; "
            f"there is one for each {BLOCK_TOKENS}",
        )
    return TraceRequest(
        read.timestamp / 1000, read.input_length, read.output_length, tuple(read.hash_ids)
    )


def _error(path: Path, number: int, cause: str) -> TraceError:
    return TraceError(f"{path}, line {number}: {cause}", _CURE)
