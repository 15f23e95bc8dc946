"""A request's spans, from its story: admission, and each leg with its transfer and its tokens."""

from collections.abc import Iterator
from zlib import crc32

from orchestrator.core import Finish, KvSource
from orchestrator.gateway.story import Admitted, Began, Left, Over, PathChosen, Sent, Story
from orchestrator.telemetry.spans import (
    Span,
    TraceParent,
    parse_traceparent,
    span_id_of,
    trace_id_of,
)

_SHARES = 1 << 16
_LEGS = {
    KvSource.PRODUCE: ("prefill", ""),
    KvSource.TRANSFER: ("decode", "kv_transfer"),
    KvSource.LOCAL: ("generate", "prefill_in_place"),
}
_WELL = (Finish.STOP, Finish.LENGTH)


def root_of(request_id: str, header: str | None, share: float) -> str:
    """The `traceparent` of the request's own span, which its client's may be the parent of, as
    "CLIENT_SPAN OWN"; "" if it is not sampled.

    A client that says whether its trace is sampled decides; of the others it is a `share`.
    """
    given = parse_traceparent(header) if header else None
    if given is not None:
        if not given.sampled:
            return ""
        own = TraceParent(given.trace_id, span_id_of(request_id, "request"))
        return f"{given.span_id} {own.text()}"
    if crc32(request_id.encode()) % _SHARES >= share * _SHARES:
        return ""
    own = TraceParent(trace_id_of(request_id), span_id_of(request_id, "request"))
    return f" {own.text()}"


def attempt_of(story: Story, attempt: int) -> str:
    """The `traceparent` that the engine of an attempt is told; "" if the request has none."""
    if not story.traceparent:
        return ""
    own = _own(story)
    return TraceParent(own.trace_id, span_id_of(story.request_id, attempt)).text()


def _own(story: Story) -> TraceParent:
    found = parse_traceparent(story.traceparent.partition(" ")[2])
    assert found is not None, "a story's own"
    return found


def spans_of(story: Story, model: str, wall_ns: int, now: float) -> list[Span]:
    """All of a story that is over; `wall_ns` of Unix time is the instant `now` of its clock."""
    return list(_Telling(story, model, wall_ns, now).spans())


class _Telling:
    def __init__(self, story: Story, model: str, wall_ns: int, now: float) -> None:
        self._story = story
        self._model = model
        self._wall_ns = wall_ns
        self._now = now
        self._own = _own(story)
        ends = [event for event in story.events if isinstance(event, Over)]
        self._over_at = ends[0].at if ends else now
        self._over = ends[0] if ends else None

    def _ns(self, at: float) -> int:
        return self._wall_ns - int((self._now - at) * 1e9)

    def _span(
        self,
        name: str,
        span_id: str,
        parent_id: str,
        begin: float,
        end: float,
        attributes: dict[str, str | int | float],
        failed: str = "",
        *,
        server: bool = False,
    ) -> Span:
        begin_ns = self._ns(begin)
        end_ns = max(begin_ns, self._ns(end))
        return Span(
            name,
            self._own.trace_id,
            span_id,
            parent_id,
            begin_ns,
            end_ns,
            attributes,
            failed,
            server,
        )

    def spans(self) -> Iterator[Span]:
        """The request's own, then what is below it."""
        story = self._story
        yield self._request()
        for event in story.events:
            if isinstance(event, Admitted) and event.decision != "queue":
                yield self._span(
                    "admission",
                    span_id_of(story.request_id, "admission"),
                    self._own.span_id,
                    story.arrived_at,
                    event.at,
                    {"r1.decision": event.decision, "r1.reason": event.reason},
                )
            elif isinstance(event, Sent):
                yield from self._leg(event)

    def _request(self) -> Span:
        story, over = self._story, self._over
        attributes: dict[str, str | int | float] = {
            "r1.request_id": story.request_id,
            "gen_ai.request.model": self._model,
            "gen_ai.usage.input_tokens": story.prompt_tokens,
            "r1.class": story.klass,
        }
        path = next((e for e in story.events if isinstance(e, PathChosen)), None)
        if path is not None:
            attributes["r1.path"] = path.choice.path.value
            attributes["r1.path_reason"] = path.choice.reason.value
        failed = ""
        if over is not None:
            attributes["gen_ai.usage.output_tokens"] = over.output_tokens
            attributes["r1.prefix_hit_tokens"] = over.cached_tokens
            finish = "left" if over.finish is None else over.finish.value
            attributes["r1.finish"] = finish
            failed = finish if over.finish is not None and over.finish not in _WELL else ""
        client = story.traceparent.partition(" ")[0]
        return self._span(
            "request",
            self._own.span_id,
            client,
            story.arrived_at,
            self._over_at,
            attributes,
            failed,
            server=True,
        )

    def _leg(self, sent: Sent) -> Iterator[Span]:
        story = self._story
        name, before_tokens = _LEGS[sent.kv_source]
        began = self._began(sent.attempt)
        left = self._left(sent.attempt)
        end = self._over_at if left is None else left.at
        own_id = span_id_of(story.request_id, sent.attempt)
        attributes: dict[str, str | int | float] = {
            "r1.rank_id": sent.rank_id,
            "r1.attempt": sent.attempt,
        }
        failed = ""
        if left is not None:
            attributes["r1.finish"] = left.finish.value
            attributes["r1.cached_tokens"] = left.cached_tokens
            failed = "" if left.finish in (*_WELL, Finish.ABORTED) else left.finish.value
        yield self._span(name, own_id, self._own.span_id, sent.at, end, attributes, failed)
        if before_tokens and began is not None:
            first_id = span_id_of(story.request_id, sent.attempt, before_tokens)
            yield self._span(before_tokens, first_id, own_id, sent.at, began.at, {})
            tokens_id = span_id_of(story.request_id, sent.attempt, "tokens")
            yield self._span("tokens", tokens_id, own_id, began.at, end, {})

    def _began(self, attempt: int) -> Began | None:
        events = self._story.events
        return next((e for e in events if isinstance(e, Began) and e.attempt == attempt), None)

    def _left(self, attempt: int) -> Left | None:
        events = self._story.events
        return next((e for e in events if isinstance(e, Left) and e.attempt == attempt), None)
