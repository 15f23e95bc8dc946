"""Spans of a request: what is below what, whose trace it is, and who is told."""

from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator.codec import Tokenizer
from orchestrator.core import KvSource, SpecError
from orchestrator.gateway.tracing import root_of
from orchestrator.spec import TracingSpec
from orchestrator.telemetry.otlp import OtlpSpans
from orchestrator.telemetry.spans import Span, open_spans, parse_traceparent
from tests.scripted_gateway import BOTH, FAST, PATH, R1_ALONE, KeptSpans, body, stack

QUESTION = "Why is the sky blue, and the grass not? " * 4
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_prefill_and_decode_are_below_the_request_which_is_below_its_clients_span(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with stack(tokenizer, tmp_path, BOTH, FAST, tracing=TracingSpec(share=0.0)) as running:
        kept = KeptSpans()
        running.running.models.trace_to(kept)
        headers = {"authorization": "Bearer sk-any", "traceparent": CLIENT}
        asked = body(QUESTION)
        answer = await running.running.http.post(PATH, json=asked, headers=headers)
        assert answer.status_code == 200
        await running.post(QUESTION)  # whose client has no trace, and of which none is sampled
    request, prefill, decode = (kept.named(name) for name in ("request", "prefill", "decode"))
    assert {span.trace_id for span in kept.spans} == {CLIENT.split("-")[1]}
    assert request.parent_id == CLIENT.split("-")[2]
    assert prefill.parent_id == decode.parent_id == request.span_id
    assert kept.named("kv_transfer").parent_id == kept.named("tokens").parent_id == decode.span_id
    assert request.begin_ns <= prefill.begin_ns <= prefill.end_ns <= decode.end_ns <= request.end_ns
    assert request.attributes["r1.request_id"] == answer.json()["id"]
    told = {s.kv_source: parse_traceparent(s.traceparent) for s in running.submits if s.traceparent}
    assert set(told) == {KvSource.PRODUCE, KvSource.TRANSFER}
    assert told[KvSource.PRODUCE].span_id == prefill.span_id  # type: ignore[union-attr]
    assert told[KvSource.TRANSFER].span_id == decode.span_id  # type: ignore[union-attr]


async def test_without_a_collector_nobody_is_told_and_nothing_is_kept_for_spans(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with stack(tokenizer, tmp_path, R1_ALONE) as running:
        headers = {"authorization": "Bearer sk-any", "traceparent": CLIENT}
        await running.running.http.post(PATH, json=body(QUESTION), headers=headers)
        assert not running.running.models.traces
        (submit,) = running.submits
        assert submit.traceparent == ""


def test_the_share_holds_for_those_whose_clients_have_not_decided() -> None:
    ids = [f"request-{number}" for number in range(2_000)]
    assert 150 < sum(bool(root_of(id_, None, 0.1)) for id_ in ids) < 250
    assert not any(root_of(id_, None, 0.0) for id_ in ids)
    assert all(root_of(id_, None, 1.0) for id_ in ids)
    assert root_of("a", CLIENT, 0.0)
    assert not root_of("a", f"{CLIENT[:-2]}00", 1.0), "its client said no"


@pytest.mark.parametrize(
    "text", ["", "00", CLIENT[3:], CLIENT.replace("0af7", "0AF7"), f"ff{CLIENT[2:]}",
             "00-00000000000000000000000000000000-b7ad6b7169203331-01"]
)  # fmt: skip
def test_what_is_no_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_the_sdk_gets_them_with_their_own_ids() -> None:
    exporter = InMemorySpanExporter()
    sink = OtlpSpans("http://127.0.0.1:1", "gateway-1", "0", exporter)
    trace = CLIENT.split("-")[1]
    sink.send([Span("decode", trace, "00000000000000ab", "", 10, 30, {"r1.attempt": 1}, "failed")])
    sink.close()
    (got,) = exporter.get_finished_spans()
    assert got.context is not None
    assert (got.context.trace_id, got.context.span_id) == (int(trace, 16), 0xAB)
    assert (got.start_time, got.end_time, got.name) == (10, 30, "decode")
    assert not got.status.is_ok
    assert got.resource.attributes["service.instance.id"] == "gateway-1"


def test_spans_without_the_sdk_are_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "orchestrator.telemetry.otlp", None)
    with pytest.raises(SpecError) as refused:
        open_spans("http://127.0.0.1:4318", "gateway-1")
    assert "r1-serve[tracing]" in refused.value.cure
