"""Spans of requests, sent by OpenTelemetry's SDK (the `tracing` extra) over OTLP.

They are made when a request has ended, from what was kept of it, so that nothing is done on the way
of a token. Their ids are chosen here, since engines are told of theirs before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from orchestrator import __version__
from orchestrator.core import SpecError

_SAMPLED = 1
_VERSION = "00"


@dataclass(frozen=True, slots=True)
class TraceParent:
    """W3C's `traceparent`: 32 and 16 hex digits."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def text(self) -> str:
        """As the header has it."""
        return f"{_VERSION}-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(text: str) -> TraceParent | None:
    """What a client's header says; None if it is none."""
    parts = text.strip().split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    version, trace_id, span_id, flags = parts[:4]
    if version == "ff" or not all(set(part) <= set("0123456789abcdef") for part in parts[:4]):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def span_id_of(*parts: object) -> str:
    """The id of the span that these parts name: always the same."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def trace_id_of(request_id: str) -> str:
    """The id of the trace of a request whose client has none."""
    return blake2b(request_id.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Span:
    """One span that is over. Instants are nanoseconds of Unix time."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str  # "": none
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, str | int | float]
    failed: str = ""  # why, if it did
    server: bool = False  # the request as its client knows it


class SpanSink(Protocol):
    """Where spans go."""

    def send(self, spans: Sequence[Span]) -> None:
        """Takes them; never waits and never raises."""
        ...

    def close(self) -> None:
        """Sends what is left, within seconds."""
        ...


def open_spans(endpoint: str, instance: str) -> SpanSink:
    """Sends to the collector at http://HOST:PORT, in batches, on a thread of the SDK's.

    Raises SpecError if the SDK is not installed.
    """
    try:
        from orchestrator.telemetry.otlp import OtlpSpans
    except ImportError as error:
        raise SpecError(
            f"tracing.endpoint needs OpenTelemetry's SDK: {error}",
            "install r1-serve[tracing], or leave tracing.endpoint out",
        ) from error
    return OtlpSpans(endpoint, instance, __version__)
