"""`POST /chat/completions`: from the body's bytes to the reply's, over one passage."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from orchestrator.admission import Reason as AdmissionReason
from orchestrator.codec import Splitter, Tokenizer, render_r1
from orchestrator.core import Finish, Request, RequestId
from orchestrator.engines import Sampling
from orchestrator.gateway.chat_request import (
    ChatLimits,
    ChatRequest,
    check_context,
    parse_chat_request,
)
from orchestrator.gateway.errors import ApiError, bad_request, error_body, overloaded
from orchestrator.gateway.passage import Passage
from orchestrator.gateway.service import Service
from orchestrator.gateway.wire import (
    BodyReply,
    Reply,
    ReplyHead,
    StreamReply,
    Usage,
    finish_reason,
)
from orchestrator.telemetry import metrics

R1_TEMPERATURE = 0.6  # R1's model card: 0.5 to 0.7, never greedy
R1_TOP_P = 0.95  # the same
LONG_BODY_BYTES = 32 << 10  # from here on encoding would hold up other streams for over 10 ms


@dataclass(slots=True)
class _Call:
    """One request between its parsing and its end."""

    passage: Passage
    splitter: Splitter
    reply: Reply
    arrived_at: float
    started: bool = False  # whether the status went out


class Chat:
    """The endpoint, as an ASGI application of its own: nothing stands between it and the socket."""

    def __init__(
        self, service: Service, tokenizer: Tokenizer, limits: ChatLimits, fingerprint: str
    ) -> None:
        self._service = service
        self._tokenizer = tokenizer
        self._limits = limits
        self._fingerprint = fingerprint
        self._models = (service.spec.model.name,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Never raises for what a client sent."""
        opened = await self._open(await self._read(receive))
        if isinstance(opened, ApiError):
            self._service.metrics.count(metrics.REQUESTS, 1, f"error_{opened.status}")
            await send_error(send, opened)
            return
        outcome = "cancelled"
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_watch(receive, opened.passage))
                outcome = await self._relay(opened, send)
                watcher.cancel()
        finally:
            self._service.close(opened.passage)  # does not wait: frees the engine within a step
            self._count(opened, outcome)

    # --- the request ---------------------------------------------------------------------------

    async def _read(self, receive: Receive) -> bytes | ApiError:
        limit = self._service.spec.gateway.max_body_bytes
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return bad_request("The client went away")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                return bad_request(f"The request body is larger than {limit} bytes")
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _open(self, body: bytes | ApiError) -> _Call | ApiError:
        if isinstance(body, ApiError):
            return body
        asked = parse_chat_request(body, self._models, self._limits)
        if isinstance(asked, ApiError):
            return asked
        if len(body) < LONG_BODY_BYTES:
            prompt = render_r1(self._tokenizer, asked.messages)
        else:
            prompt = await asyncio.to_thread(render_r1, self._tokenizer, asked.messages)
        if error := check_context(len(prompt.ids), asked.max_tokens, self._limits):
            return error
        now = asyncio.get_running_loop().time()
        request = Request(
            RequestId(str(uuid4())),
            len(prompt.ids),
            asked.max_tokens,
            now,
            now + self._service.spec.admission.queue_timeout_s,
        )
        passage = self._service.open(request, prompt.ids, self._sampling(asked))
        splitter = Splitter(self._tokenizer, thinking=prompt.thinking, stop=asked.stop)
        return _Call(passage, splitter, self._reply(request.request_id, asked), now)

    def _sampling(self, asked: ChatRequest) -> Sampling:
        """The reasoner's own sampling, unless the operator lets clients choose."""
        temperature, top_p = R1_TEMPERATURE, R1_TOP_P
        if self._service.spec.gateway.honor_sampling:
            temperature = temperature if asked.temperature is None else asked.temperature
            top_p = top_p if asked.top_p is None else asked.top_p
        eos = (self._tokenizer.control.end_of_sentence,)
        return Sampling(asked.max_tokens, temperature, top_p, asked.seed, eos)

    def _reply(self, request_id: RequestId, asked: ChatRequest) -> Reply:
        created = int(datetime.now(UTC).timestamp())
        head = ReplyHead(request_id, created, asked.model, self._fingerprint)
        return StreamReply(head) if asked.stream else BodyReply(head)

    # --- the reply -----------------------------------------------------------------------------

    async def _relay(self, call: _Call, send: Send) -> str:
        """Sends what comes until the end; returns how the request ended, for the metrics.

        No byte goes out before the first token or the first keep-alive, so that what fails early
        keeps its status.
        """
        passage, reply = call.passage, call.reply
        first = True
        while True:
            woken = await passage.wait(self._service.spec.gateway.keep_alive_s)
            if passage.gone:
                return "cancelled"
            if not woken:
                await self._send(call, send, reply.keep_alive)
                continue
            ids = passage.take()
            if ids and first:
                first = False
                self._service.metrics.observe(metrics.TTFT, _now() - call.arrived_at)
            if passage.ended and not ids:
                return await self._end(call, send)
            if data := reply.push(call.splitter.push(ids)):
                await self._send(call, send, data)
            if call.splitter.stopped:
                return await self._end(call, send)

    async def _end(self, call: _Call, send: Send) -> str:
        passage = call.passage
        if passage.shed is not None and not call.started:
            return await self._refuse(
                send, _shed_error(passage.shed.reason), passage.shed.retry_after_s
            )
        finished = passage.finished
        finish = Finish.FAILED if finished is None else finished.finish
        if call.splitter.stopped:
            finish = Finish.STOP
        if not call.started and finish is Finish.REFUSED:
            return await self._refuse(send, bad_request("The engine refused the request"), None)
        if not call.started and finish not in {Finish.STOP, Finish.LENGTH}:
            error = overloaded("The request could not be completed, please try again")
            return await self._refuse(send, error, 1)
        splitter = call.splitter
        tail = call.reply.push(splitter.end())
        usage = Usage(
            len(passage.prompt_ids),
            passage.handoff.cached_tokens,
            splitter.completion_tokens,
            splitter.reasoning_tokens,
        )
        reason = finish_reason(finish, stopped=splitter.stopped, tool_calls=splitter.tool_calls)
        await self._send(call, send, tail + call.reply.end(reason, usage), last=True)
        return reason

    async def _send(self, call: _Call, send: Send, data: bytes, *, last: bool = False) -> None:
        if not call.started:
            call.started = True
            await send(_start(200, call.reply.content_type, len(data) if last else None))
        await send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _refuse(self, send: Send, error: ApiError, retry_after_s: int | None) -> str:
        await send_error(send, error, retry_after_s)
        return f"error_{error.status}"

    def _count(self, call: _Call, outcome: str) -> None:
        counted, splitter = self._service.metrics, call.splitter
        counted.count(metrics.REQUESTS, 1, outcome)
        counted.count(metrics.TOKENS, splitter.reasoning_tokens, "reasoning")
        answer = splitter.completion_tokens - splitter.reasoning_tokens
        counted.count(metrics.TOKENS, answer, "answer")
        counted.observe(metrics.E2E, _now() - call.arrived_at)


async def send_error(send: Send, error: ApiError, retry_after_s: int | None = None) -> None:
    """The whole answer to a request that failed before anything was sent."""
    body = error_body(error)
    await send(_start(error.status, "application/json", len(body), retry_after_s))
    await send({"type": "http.response.body", "body": body})


def _start(
    status: int, content_type: str, length: int | None, retry_after_s: int | None = None
) -> dict[str, object]:
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


def _shed_error(reason: AdmissionReason) -> ApiError:
    match reason:
        case AdmissionReason.DEADLINE_PASSED:
            return overloaded("The request waited too long, please try again later")
        case _:
            return overloaded("The server is overloaded, please try again later")


async def _watch(receive: Receive, passage: Passage) -> None:
    """Returns when the client has gone, and wakes the relay."""
    while (await receive())["type"] != "http.disconnect":
        pass
    passage.leave()


def _now() -> float:
    return asyncio.get_running_loop().time()
