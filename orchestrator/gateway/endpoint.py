"""What every endpoint that generates does around its own reading: key, body, admission, relay."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import assert_never
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from orchestrator.admission import ThinkingBudget, ThinkingCase
from orchestrator.codec import AnySplitter, Begin, Prompt, ThoughtLimit
from orchestrator.core import Request, RequestId
from orchestrator.engines import Sampling
from orchestrator.gateway.direct import direct_body
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.http import DEEPSEEK, Dialect, header, read_body, send_body, send_error
from orchestrator.gateway.measures import Times
from orchestrator.gateway.models import Models, Served
from orchestrator.gateway.relay import Call, Headers, relay
from orchestrator.gateway.tenants import Bill, Tenants
from orchestrator.gateway.tracing import root_of
from orchestrator.gateway.wire import Reply, ReplyHead
from orchestrator.spec import PrefixSharing
from orchestrator.telemetry import metrics
from orchestrator.telemetry.metrics.labels import Stage

_SESSION = b"x-session-id"
_TRACEPARENT = b"traceparent"
_SESSION_BYTES_MAX = 128
_LONG_BODY_BYTES = 2 << 10  # from here on encoding would hold up other streams for over 1 ms


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is valid, before it is admitted."""

    served: Served
    prompt: Prompt
    sampling: Sampling
    splitter: AnySplitter
    reply: Callable[[ReplyHead], Reply]
    name: str  # the model's, as the client used it
    user_id: str = ""
    streamed: bool = False
    thinks: bool = False
    thinking: ThinkingCase | None = None  # as far as the request says; None: nothing to bound
    json: bool = False
    headers: Headers = ()


# From a body to a request, to an answer that needs no engine, or to what is wrong.
Prepare = Callable[[bytes], Awaitable[Prepared | bytes | ApiError]]


async def rendered(render: Callable[[], Prompt], body_bytes: int) -> Prompt:
    """What `render` returns; in a thread if the client sent so much that it takes long."""
    return render() if body_bytes < _LONG_BODY_BYTES else await asyncio.to_thread(render)


class Endpoint:
    """One endpoint, as an ASGI application: nothing stands between it and the socket.

    The order of checks is the official one: key, balance, body, model, ranges, rules, context,
    limits, room.
    """

    def __init__(
        self, models: Models, tenants: Tenants, prepare: Prepare, dialect: Dialect = DEEPSEEK
    ) -> None:
        self._models = models
        self._tenants = tenants
        self._prepare = prepare
        self._dialect = dialect
        classes = models.spec.admission.classes
        self._class_thinking_tokens = {each.name: each.thinking_tokens for each in classes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Never raises for what a client sent."""
        tenant = self._tenants.check(self._dialect.authorization(scope))
        if isinstance(tenant, ApiError):
            await self._refuse(send, tenant)
            return
        if error := self._tenants.refusal(tenant):
            await self._refuse(send, error)
            return
        body = await read_body(receive, self._models.spec.gateway.max_body_bytes)
        if body is None:
            return
        came_at = _now()
        prepared = body if isinstance(body, ApiError) else await self._prepare(body)
        if isinstance(prepared, ApiError):
            await self._refuse(send, prepared)
            return
        if isinstance(prepared, bytes):
            await send_body(send, prepared)
            return
        bill = Bill(
            str(uuid4()),
            tenant,
            prepared.served.spec,
            streamed=prepared.streamed,
            prompt_tokens=len(prepared.prompt.ids),
        )
        if error := self._tenants.open(bill):
            await self._refuse(send, error)
            return
        outcome = "cancelled"
        try:
            ready_at = _now()
            trace = self._trace(bill, scope) if self._models.traces else ""
            call = self._open(prepared, bill, _session(tenant, scope), came_at, trace)
            counted = self._models.metrics
            counted.observe(metrics.STAGE, ready_at - came_at, Stage.PREPARE)
            counted.observe(metrics.STAGE, _now() - ready_at, Stage.OPEN)
            call.direct = direct_body(scope)
            bill.follow = call.used
            outcome = await relay(call, receive, send)
        finally:
            self._tenants.close(bill, outcome)

    async def _refuse(self, send: Send, error: ApiError) -> None:
        self._models.metrics.count(metrics.REQUESTS, 1, "", "", f"error_{error.status}")
        await send_error(send, error, self._dialect)

    def _trace(self, bill: Bill, scope: Scope) -> str:
        share = self._models.spec.tracing.share
        return root_of(bill.request_id, header(scope, _TRACEPARENT), share)

    def _open(
        self, prepared: Prepared, bill: Bill, session: str, came_at: float, trace: str
    ) -> Call:
        spec, prompt = self._models.spec, prepared.prompt
        tenant = self._tenants.of(bill.tenant)
        now = _now()
        request = Request(
            RequestId(bill.request_id),
            len(prompt.ids),
            prepared.sampling.max_tokens,
            now,
            now + spec.admission.queue_timeout_s,
            session,
            bill.tenant,
            tenant.admission_class,
        )
        budget = self._thinking_budget(prepared, bill)
        sampling = prepared.sampling
        if budget is not None:
            sampling = msgspec.structs.replace(sampling, thinking_budget=budget.soft_tokens)
        sharing = tenant.prefix_sharing or spec.api.prefix_sharing
        passage = prepared.served.service.open(
            request,
            prompt.ids,
            sampling,
            _salt(sharing, bill.tenant, prepared.user_id),
            _pin_ids(prepared),
            _thought_limit(prepared, budget),
            trace,
        )
        head = ReplyHead(
            request.request_id,
            int(datetime.now(UTC).timestamp()),
            prepared.name,
            prepared.served.fingerprint,
        )
        return Call(
            prepared.served,
            passage,
            prepared.splitter,
            prepared.reply(head),
            Times(came_at),
            spec.gateway.keep_alive_s,
            spec.gateway.client_stall_s,
            self._dialect,
            thinks=prepared.thinks,
            headers=prepared.headers,
            scored=prepared.sampling.logprobs is not None,
            grammar=prepared.sampling.grammar is not None,
            json=prepared.json,
            thinking_budget=None if budget is None else budget.soft_tokens,
        )

    def _thinking_budget(self, prepared: Prepared, bill: Bill) -> ThinkingBudget | None:
        """What tenant, class and load leave of the request's thought."""
        if prepared.thinking is None:
            return None
        tenant = self._tenants.of(bill.tenant)
        case = replace(
            prepared.thinking,
            class_tokens=self._class_thinking_tokens.get(tenant.admission_class),
            tenant=tenant.thinking,
        )
        return prepared.served.service.thinking_budget(bill.request_id, case)


def _thought_limit(prepared: Prepared, budget: ThinkingBudget | None) -> ThoughtLimit | None:
    """What closes the thought if the engine does not."""
    if budget is None:
        return None
    control, prompt = prepared.served.tokenizer.control, prepared.prompt
    return ThoughtLimit(control, prompt.ids, prompt.begin, budget.hard_tokens)


def _pin_ids(prepared: Prepared) -> frozenset[int] | None:
    """What the answer begins with, if a grammar holds it; nothing if the prompt has begun it."""
    if prepared.sampling.grammar is None:
        return None
    if prepared.prompt.begin in {Begin.ANSWER, Begin.ANSWER_ON}:
        return frozenset()
    control = prepared.served.tokenizer.control
    ids = (control.end_think, control.tool_calls)
    return frozenset(id_ for id_ in ids if id_ is not None)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _session(tenant: str, scope: Scope) -> str:
    """The client's own name of the conversation, which no other tenant's can be; what is longer
    than a name is none.
    """
    name = header(scope, _SESSION)
    if not name or len(name) > _SESSION_BYTES_MAX:
        return ""
    return f"{tenant}/{name}"


def _salt(sharing: PrefixSharing, tenant: str, user_id: str) -> str:
    """Whose KV a request may share: that of all with the same salt; the empty one is everybody's
    who has neither a key nor a name.
    """
    match sharing:
        case PrefixSharing.ALL:
            return ""
        case PrefixSharing.TENANT:
            user_id = ""
        case PrefixSharing.USER:
            pass
        case _:
            assert_never(sharing)
    if not tenant and not user_id:
        return ""
    return hmac.new(tenant.encode(), user_id.encode(), hashlib.sha256).hexdigest()
