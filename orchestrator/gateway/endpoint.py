"""What every endpoint that generates does around its own reading: key, body, admission, relay."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from orchestrator.codec import AnySplitter, Begin, Prompt
from orchestrator.core import Request, RequestId
from orchestrator.engines import Sampling
from orchestrator.gateway.direct import direct_body
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.http import DEEPSEEK, Dialect, header, read_body, send_body, send_error
from orchestrator.gateway.keys import Account, Keys
from orchestrator.gateway.models import Models, Served
from orchestrator.gateway.relay import Call, Headers, relay
from orchestrator.gateway.wire import Reply, ReplyHead
from orchestrator.telemetry import metrics

_SESSION = b"x-session-id"
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
    thinks: bool = False
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
    room.
    """

    def __init__(
        self, models: Models, keys: Keys, prepare: Prepare, dialect: Dialect = DEEPSEEK
    ) -> None:
        self._models = models
        self._keys = keys
        self._prepare = prepare
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Never raises for what a client sent."""
        account = self._keys.check(self._dialect.authorization(scope))
        if isinstance(account, ApiError):
            await self._refuse(send, account)
            return
        if error := self._keys.refusal(account):
            await self._refuse(send, error)
            return
        body = await read_body(receive, self._models.spec.gateway.max_body_bytes)
        if body is None:
            return
        prepared = body if isinstance(body, ApiError) else await self._prepare(body)
        if isinstance(prepared, ApiError):
            await self._refuse(send, prepared)
            return
        if isinstance(prepared, bytes):
            await send_body(send, prepared)
            return
        if error := self._keys.admit(account):
            await self._refuse(send, error)
            return
        try:
            call = self._open(prepared, account, _session(account, scope))
            call.direct = direct_body(scope)
            await relay(call, receive, send)
        finally:
            self._keys.release(account)

    async def _refuse(self, send: Send, error: ApiError) -> None:
        self._models.metrics.count(metrics.REQUESTS, 1, "", f"error_{error.status}")
        await send_error(send, error, self._dialect)

    def _open(self, prepared: Prepared, account: Account, session: str) -> Call:
        spec, prompt = self._models.spec, prepared.prompt
        now = asyncio.get_running_loop().time()
        request = Request(
            RequestId(str(uuid4())),
            len(prompt.ids),
            prepared.sampling.max_tokens,
            now,
            now + spec.admission.queue_timeout_s,
            session,
            account.name,
            account.klass,
        )
        passage = prepared.served.service.open(
            request,
            prompt.ids,
            prepared.sampling,
            _salt(account, prepared.user_id),
            _pin_ids(prepared),
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
            now,
            spec.gateway.keep_alive_s,
            spec.gateway.client_stall_s,
            self._dialect,
            thinks=prepared.thinks,
            headers=prepared.headers,
            scored=prepared.sampling.logprobs is not None,
            grammar=prepared.sampling.grammar is not None,
            json=prepared.json,
        )


def _pin_ids(prepared: Prepared) -> frozenset[int] | None:
    """What the answer begins with, if a grammar holds it; nothing if the prompt has begun it."""
    if prepared.sampling.grammar is None:
        return None
    if prepared.prompt.begin in {Begin.ANSWER, Begin.ANSWER_ON}:
        return frozenset()
    control = prepared.served.tokenizer.control
    ids = (control.end_think, control.tool_calls)
    return frozenset(id_ for id_ in ids if id_ is not None)


def _session(account: Account, scope: Scope) -> str:
    """The client's own name of the conversation, which no other account's can be; what is longer
    than a name is none.
    """
    name = header(scope, _SESSION)
    if not name or len(name) > _SESSION_BYTES_MAX:
        return ""
    return f"{account.name}/{name}"


def _salt(account: Account, user_id: str) -> str:
    """Whose KV a request may share: its own account's and user's, or everybody's without either."""
    if not account.name and not user_id:
        return ""
    return hmac.new(account.name.encode(), user_id.encode(), hashlib.sha256).hexdigest()
