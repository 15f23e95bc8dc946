"""OpenTelemetry's SDK as a sink of spans. Importing it needs the `tracing` extra."""

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from orchestrator.telemetry.spans import Span

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpSpans:
    """Hands spans to the SDK's batches; when a collector does not keep up, spans are dropped."""

    def __init__(
        self, endpoint: str, instance: str, version: str, exporter: SpanExporter | None = None
    ) -> None:
        """Without an exporter it is OTLP over HTTP to the endpoint."""
        exporter = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._processor = BatchSpanProcessor(exporter)
        self._scope = InstrumentationScope("r1-serve", version)
        self._resource = Resource(
            {
                "service.name": "r1-serve",
                "service.instance.id": instance,
                "service.version": version,
            }
        )

    def send(self, spans: Sequence[Span]) -> None:
        """See `SpanSink`."""
        for span in spans:
            self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """See `SpanSink`."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # of the SDK's own

    def _readable(self, span: Span) -> ReadableSpan:
        parent = _context(span.trace_id, span.parent_id) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.SERVER if span.server else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(),
            start_time=span.begin_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)
