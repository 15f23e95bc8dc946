"""Reads the lines of a trace file: Mooncake's JSON lines and Azure's CSV."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain

from orchestrator.core import SpecError
from orchestrator.workload.workload import BLOCK_TOKENS, TraceRequest, Workload, summarise

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_NEEDED = ("at_s", "input_tokens", "output_tokens")
_FORMATS = (
    "JSON lines with timestamp (ms), input_length, output_length and perhaps hash_ids; or CSV with "
    f"the columns {', '.join(_NEEDED)} and perhaps thinking_tokens and class, or {AZURE_HEADER}"
)


def read_trace(lines: Iterable[str], origin: str) -> Workload:
    """The summary of a trace; `origin` names it in errors, which are SpecErrors with the line."""
    requests = list(trace_requests(lines, origin))
    if len(requests) < 2:
        raise SpecError(
            f"{origin} holds {len(requests)} requests, of which nothing can be said",
            "give a trace with at least two",
        )
    return summarise(origin, f"trace of {len(requests):,} requests", requests)


def trace_requests(lines: Iterable[str], origin: str) -> Iterator[TraceRequest]:
    """The requests of a trace, read one at a time. Raises SpecError with the line."""
    rest = iter(lines)
    first = next((line for line in rest if line.strip()), "")
    if first.lstrip().startswith("{"):
        yield from _json_lines(chain([first], rest), origin)
    elif first.strip() == AZURE_HEADER:
        yield from _azure(rest, origin)
    elif set(_NEEDED) <= set(columns := [word.strip() for word in first.split(",")]):
        yield from _csv(columns, rest, origin)
    else:
        raise SpecError(f"{origin} is no trace: it begins {first.strip()[:40]!r}", _FORMATS)


def _csv(columns: Sequence[str], lines: Iterable[str], origin: str) -> Iterator[TraceRequest]:
    for number, row in enumerate(csv.reader(lines), 2):
        if not row:
            continue
        try:
            cells = dict(zip(columns, row, strict=True))
            request = TraceRequest(
                float(cells["at_s"]),
                int(cells["input_tokens"]),
                int(cells["output_tokens"]),
                thinking_tokens=int(cells.get("thinking_tokens") or 0),
                klass=cells.get("class", "").strip(),
            )
        except ValueError as error:
            raise SpecError(f"{origin}, line {number}: {error}", _FORMATS) from error
        yield _checked(request, origin, number)


def _json_lines(lines: Iterable[str], origin: str) -> Iterator[TraceRequest]:
    """Format: Mooncake, FAST25-release/README.md."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            request = TraceRequest(
                float(row["timestamp"]) / 1e3,
                int(row["input_length"]),
                int(row["output_length"]),
                _hash_ids(row.get("hash_ids", ())),
                int(row.get("thinking_length", 0)),
                str(row.get("class", "")),
            )
        except KeyError as missing:
            raise SpecError(f"{origin}, line {number}: no {missing.args[0]}", _FORMATS) from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SpecError(f"{origin}, line {number}: {error}", _FORMATS) from error
        if request.hash_ids and len(request.hash_ids) * BLOCK_TOKENS < request.input_tokens:
            raise SpecError(
                f"{origin}, line {number}: {len(request.hash_ids)} hash ids for "
                f"{request.input_tokens} tokens",
                f"give one for each {BLOCK_TOKENS} tokens, or none",
            )
        yield _checked(request, origin, number)


def _hash_ids(given: object) -> tuple[int, ...]:
    if not isinstance(given, list | tuple) or not all(type(each) is int for each in given):
        raise ValueError(f"hash_ids are not whole numbers: {str(given)[:40]}")
    return tuple(given)


def _azure(lines: Iterable[str], origin: str) -> Iterator[TraceRequest]:
    """Format: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md."""
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            stamp, context, generated = line.strip().split(",")
            # Seven digits of fractional seconds, one more than Python reads.
            at = datetime.fromisoformat(f"{stamp[:26].replace(' ', 'T')}+00:00")
            request = TraceRequest(at.timestamp(), int(context), int(generated))
        except ValueError as error:
            raise SpecError(f"{origin}, line {number}: {error}", _FORMATS) from error
        yield _checked(request, origin, number)


def _checked(request: TraceRequest, origin: str, number: int) -> TraceRequest:
    if request.input_tokens < 0 or request.output_tokens < 0:
        raise SpecError(f"{origin}, line {number}: a negative length", "mend or remove the line")
    if not (math.isfinite(request.at_s) and request.at_s >= 0):
        raise SpecError(f"{origin}, line {number}: no instant", "mend or remove the line")
    return request
