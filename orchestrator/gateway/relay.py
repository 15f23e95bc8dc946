"""One request between its parsing and its end: from the engine's ids to the reply's bytes."""

import asyncio
from dataclasses import dataclass, field

import msgspec
from starlette.types import Receive, Send

from orchestrator.admission import Reason as AdmissionReason
from orchestrator.codec import AnswerText, AnySplitter, Piece
from orchestrator.core import Finish, TokenCounts, TokenLogprob
from orchestrator.gateway.direct import DirectBody
from orchestrator.gateway.errors import ApiError, bad_request, overloaded, rate_limited
from orchestrator.gateway.http import DEEPSEEK, Dialect, response_start, send_error
from orchestrator.gateway.measures import Times
from orchestrator.gateway.models import Served
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.wire import Reply, ScoredToken, Usage, finish_reason
from orchestrator.telemetry import metrics
from orchestrator.telemetry.registry import Observed

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Call:
    """All that a request needs until its end."""

    served: Served
    passage: Passage
    splitter: AnySplitter
    reply: Reply
    times: Times
    keep_alive_s: float
    stall_s: float
    dialect: Dialect = DEEPSEEK
    thinks: bool = True
    headers: Headers = ()
    scored: bool = False  # logprobs were asked for
    grammar: bool = False
    json: bool = False  # the answer must be JSON
    thinking_budget: int | None = None  # tokens, that holds for the thought
    direct: DirectBody | None = None  # past `send`, where the server offers it
    started: bool = False  # whether the status went out
    sending: bool = False  # a `send` is under way
    fault: Exception | None = None  # of ours, met in `_tap`
    heard_at: float = 0.0  # when bytes last went to the client
    gaps: Observed | None = None  # of this stream's tokens; None: not measured
    in_thought: bool = False  # the client has had tokens, and none of the answer
    answer: list[str] = field(default_factory=list)  # kept only if it must be JSON
    unsent: list[ScoredToken] = field(default_factory=list)  # whose text has not come out yet
    outcome: str = "cancelled"  # how it ended, for the metrics and the journal

    @property
    def usage(self) -> Usage:
        """What it has used so far. The prefix hit is known once the prompt's leg has ended."""
        splitter = self.splitter
        return Usage(
            len(self.passage.prompt_ids),
            self.passage.handoff.cached_tokens,
            splitter.completion_tokens,
            splitter.reasoning_tokens if self.thinks else None,
            self.thinking_budget,
        )

    def used(self) -> TokenCounts:
        """The same by class of token; nothing until a rank has been asked."""
        if not self.passage.attempts:
            return TokenCounts()
        usage, thinking = self.usage, self.splitter.reasoning_tokens
        return TokenCounts(
            usage.prompt_tokens - usage.hit_tokens,
            usage.hit_tokens,
            thinking,
            usage.completion_tokens - thinking,
        )


class Stalled(Exception):
    """The client has read nothing for so long that it was cut."""


async def relay(call: Call, receive: Receive, send: Send) -> str:
    """Answers one request and returns how it ended. Whatever happens, the engine is free within a
    step after it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(receive, call.passage))
            try:
                call.outcome = await _relay(call, send)
            except Stalled:
                call.outcome = "stalled"
            watcher.cancel()
    finally:
        call.served.service.close(call.passage)  # does not wait
        _count(call)
    return call.outcome


async def _watch(receive: Receive, passage: Passage) -> None:
    """Returns when the client has gone, and wakes the relay."""
    while (await receive())["type"] != "http.disconnect":
        pass
    passage.leave()


async def _relay(call: Call, send: Send) -> str:
    """Sends what comes until the end; returns how the request ended, for the metrics.

    No byte goes out before the first token or the first keep-alive, so that what fails early keeps
    its status. What counts as silence is what the client hears: tokens may come and none be sent,
    as in a reply that is one body.

    Once the stream has begun, the engine's output goes to the socket as it comes, in `_tap`; here
    is what that declines, and the end.
    """
    passage, splitter = call.passage, call.splitter
    call.heard_at = _now()
    while True:
        await passage.wait(call.heard_at + call.keep_alive_s)
        if passage.gone:
            return "cancelled"
        if call.fault is not None:
            raise call.fault
        if _now() >= call.heard_at + call.keep_alive_s and not passage.ended:
            await _send(call, send, call.reply.keep_alive)
        logprobs = passage.take_logprobs() if call.scored else ()
        ids = passage.take()
        if ids and not call.times.first_at:
            _first(call, len(ids))
        if ids:
            data = _scored(call, ids, logprobs) if call.scored else _push(call, splitter.push(ids))
            _answers(call, _now())
            if data:
                await _send(call, send, data)
                passage.tap(lambda ids: _tap(call, ids))
        elif passage.ended:
            return await _end(call, send)
        if _over(splitter):
            return await _end(call, send)


def _tap(call: Call, ids: list[int]) -> bool:
    """Writes what new ids become; False if they must wait their turn."""
    direct, splitter = call.direct, call.splitter
    if direct is None or call.sending or _over(splitter):
        return False
    if not direct.ready():
        return False
    try:
        if data := _push(call, splitter.push(ids)):
            direct.write(data)
            heard(call, splitter, _now())
    except Exception as fault:  # noqa: BLE001 - it is this request's; the caller's is a whole rank
        call.fault = fault
        call.passage.wake()
    if _over(splitter):
        call.passage.wake()
    return True


def _first(call: Call, tokens: int) -> None:
    times, measures = call.times, call.served.service.measures
    times.first_at, times.first_tokens = _now(), tokens
    measures.first(call.passage.request, times.first_at - times.arrived_at)
    call.gaps = measures.gaps(call.passage.request)
    call.in_thought = call.thinks and not call.splitter.answering


def heard(call: Call, splitter: AnySplitter, now: float) -> None:
    """Bytes have gone to the client: all that telemetry does for each token."""
    if call.gaps is not None:
        call.gaps.add(now - call.heard_at)
    call.heard_at = now
    # Asking `answering` takes longer than all the rest: only of who has more than a thought.
    if call.in_thought and splitter.completion_tokens != splitter.reasoning_tokens:
        _answers(call, now)


def _answers(call: Call, now: float) -> None:
    """The thought may have ended."""
    if not call.in_thought or not call.splitter.answering:
        return
    call.in_thought = False
    call.times.answer_at = now
    waited_s = now - call.times.arrived_at
    call.served.service.measures.answered(call.passage.request, waited_s)


def _over(splitter: AnySplitter) -> bool:
    """Whether nothing that the engine may still send belongs to the reply."""
    return splitter.stopped or splitter.exhausted


def _push(call: Call, pieces: tuple[Piece, ...], scored: tuple[ScoredToken, ...] = ()) -> bytes:
    if call.json:
        call.answer += [piece.text for piece in pieces if isinstance(piece, AnswerText)]
    if scored and not any(isinstance(piece, AnswerText) for piece in pieces):
        scored = ()  # they made a tool call or a stop string, and no text of the answer
    return call.reply.push(pieces, scored)


def _scored(call: Call, ids: list[int], logprobs: list[TokenLogprob] | tuple[()]) -> bytes:
    """One id at a time, so that each chunk has the tokens whose text it carries."""
    parts = []
    tokenizer, splitter = call.served.tokenizer, call.splitter
    for id_, probable in zip(ids, logprobs, strict=True):
        pieces = splitter.push((id_,))
        if splitter.answering:
            top = tuple((tokenizer.to_bytes((at,)), value) for at, value in probable.top)
            call.unsent.append(ScoredToken(tokenizer.to_bytes((id_,)), probable.logprob, top))
        if pieces:
            parts.append(_push(call, pieces, tuple(call.unsent)))
            call.unsent.clear()
        if _over(splitter):
            break
    return b"".join(parts)


async def _end(call: Call, send: Send) -> str:
    passage, splitter = call.passage, call.splitter
    if passage.shed is not None and not call.started:
        shed = _shed_error(passage.shed.reason, passage.shed.retry_after_s)
        return await _refuse(call, send, shed)
    finished = passage.finished
    finish = Finish.FAILED if finished is None else finished.finish
    if splitter.stopped:
        finish = Finish.STOP
    elif splitter.exhausted:
        finish = Finish.LENGTH
    if not call.started and finished is not None and finished.poison:
        return await _refuse(call, send, bad_request(_POISON))
    if not call.started and finish is Finish.REFUSED:
        return await _refuse(call, send, _refusal(call))
    if not call.started and finish not in {Finish.STOP, Finish.LENGTH}:
        again = overloaded("The request could not be completed, please try again", 1)
        return await _refuse(call, send, again)
    tail = _push(call, splitter.end(), tuple(call.unsent))
    reason = finish_reason(finish, stopped=splitter.stopped, tool_calls=splitter.tool_calls)
    await _send(call, send, tail + call.reply.end(reason, call.usage), last=True)
    _judge(call, finish, reason)
    return reason


# 400, since a client would send again what is answered 500 or 503.
_POISON = "Engines have failed on this prompt, so it is not tried again for a while"


def _refusal(call: Call) -> ApiError:
    """What an engine refuses is the client's only if it is about the client's own grammar."""
    finished = call.passage.finished
    if call.grammar and finished is not None:
        return bad_request(f"Invalid response_format or tools: {finished.cause}")
    return bad_request("The engine refused the request")


def _judge(call: Call, finish: Finish, reason: str) -> None:
    """Counts answers that are not what they should be."""
    counted, name = call.served.service.metrics, call.served.spec.name
    if call.thinks and not call.splitter.answering and finish in {Finish.STOP, Finish.LENGTH}:
        counted.count(metrics.EMPTY_ANSWERS, 1, name, reason)
    if call.json and finish is Finish.STOP and not call.splitter.stopped:
        try:
            msgspec.json.decode("".join(call.answer))
        except (msgspec.DecodeError, RecursionError):
            counted.count(metrics.INVALID_JSON, 1, name)


async def _send(call: Call, send: Send, data: bytes, *, last: bool = False) -> None:
    call.sending = True  # what comes meanwhile comes after
    try:
        async with asyncio.timeout(call.stall_s):
            if not call.started:
                call.started = True
                length = len(data) if last else None
                await send(response_start(200, call.reply.content_type, length, call.headers))
            await send({"type": "http.response.body", "body": data, "more_body": not last})
    except TimeoutError:
        if call.direct is not None:
            call.direct.cut()
        raise Stalled from None
    call.sending = False
    call.heard_at = _now()


async def _refuse(call: Call, send: Send, error: ApiError) -> str:
    await send_error(send, error, call.dialect)
    return f"error_{error.status}"


def _shed_error(reason: AdmissionReason, retry_after_s: int | None) -> ApiError:
    match reason:
        case AdmissionReason.TENANT_FULL:
            return rate_limited("too many of your requests wait", retry_after_s)
        case AdmissionReason.DEADLINE_PASSED:
            text = "The request waited too long, please try again later"
        case _:
            text = "The server is overloaded, please try again later"
    return overloaded(text, retry_after_s)


def _count(call: Call) -> None:
    reasoning = call.splitter.reasoning_tokens
    answer = call.splitter.completion_tokens - reasoning
    klass = call.passage.request.klass
    measures = call.served.service.measures
    measures.ended(klass, call.outcome, call.times, reasoning, answer, _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
