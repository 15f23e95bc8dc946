"""Passes requests through to engines that speak OpenAI's API themselves, byte for byte.

What is decided here is only where a request goes. An answer's body goes from one socket to the
other without being read; its head passes through ASGI, so that errors and connections end as
everywhere else.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from orchestrator.core import RankId, Role
from orchestrator.engines.http import Exchange, Pool, Upstream
from orchestrator.gateway.direct import DirectBody, direct_body
from orchestrator.gateway.errors import ApiError, bad_request, overloaded
from orchestrator.gateway.http import DEEPSEEK, read_body, send_error
from orchestrator.routing import Choice, Decision, Leg, Member, Prompt, Router
from orchestrator.telemetry import Metrics, metrics

ATTEMPTS_MAX = 3
WAITING_BYTES_MAX = 256 << 10  # of an answer, for a client that reads slowly
BLOCKS_ASSUMED = 4_096  # of an engine that does not say how many it has
TOKEN_BYTES = 4  # of a prompt's JSON, about: nothing is tokenised here
# RFC 9110 7.6.1: of one connection only; and what is said anew.
_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"host", b"content-length", b"expect"),
    )
)


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """What one gateway bounds."""

    requests_max: int = 1_024  # open at one engine
    block_tokens: int = 64  # of what is remembered of prompts
    blocks_max: int = 1_000_000
    stall_s: float = 60.0  # a client that reads nothing for so long is cut
    max_body_bytes: int = 8 << 20


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOTHING = msgspec.Raw(b"")


class Proxy:
    """An ASGI application over the engines' servers."""

    def __init__(self, router: Router, limits: ProxyLimits, metrics: Metrics) -> None:
        self._router = router
        self._limits = limits
        self._metrics = metrics
        self._asked = 0
        self.reached: dict[RankId, Pool] = {}  # the engines that can be chosen

    def join(self, rank_id: RankId, pool: Pool, blocks: int) -> None:
        """An engine can be chosen from now on; `blocks` are those of its KV cache, 0 if unknown."""
        kv_tokens = (blocks or BLOCKS_ASSUMED) * self._limits.block_tokens
        member = Member(rank_id, Role.UNIFIED, self._limits.requests_max, kv_tokens=kv_tokens)
        self._router.join(member, kv_events=False)
        self.reached[rank_id] = pool

    def _leave(self, rank_id: RankId) -> None:
        """It does not answer: it is not chosen again before it is found to."""
        if self.reached.pop(rank_id, None) is not None:
            self._router.leave(rank_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request as an engine does, or says why none can."""
        body = await read_body(receive, self._limits.max_body_bytes)
        if body is None:
            return
        asked = body if isinstance(body, ApiError) else _read(body)
        if isinstance(asked, ApiError):
            await send_error(send, asked, DEEPSEEK)
            return
        assert isinstance(body, bytes)
        await self._pass(_request(scope, body), self._prompt(asked), scope, receive, send)

    def _prompt(self, asked: Mapping[str, msgspec.Raw]) -> Prompt:
        """What routing needs to know, from the text alone: an engine's own tokens are its own."""
        router = self._router
        router.arrived(_now())
        text = bytes(asked.get("messages", _NOTHING)) + bytes(asked.get("prompt", _NOTHING))
        keys = text_keys(text, router.index.block_tokens * TOKEN_BYTES)
        return Prompt(
            range(max(1, len(text) // TOKEN_BYTES)), _whole(asked.get("max_tokens")), keys=keys
        )

    async def _pass(
        self, request: bytes, prompt: Prompt, scope: Scope, receive: Receive, send: Send
    ) -> None:
        tried: list[RankId] = []
        while len(tried) < ATTEMPTS_MAX and (decision := self._decide(prompt, tried)) is not None:
            assert isinstance(decision.choice, Choice)
            rank_id = decision.choice.rank_id
            self._asked += 1
            submission = str(self._asked)
            self._router.sent(submission, decision, prompt, _now())
            passage = _Passage(direct_body(scope), self._limits.stall_s)
            passage.on_first = partial(self._first, submission, _now())
            try:
                if await passage.run(self.reached[rank_id], request, receive, send):
                    return
            finally:
                self._router.ended(submission, _now())
            tried.append(rank_id)
            self._leave(rank_id)
        await send_error(send, overloaded("No engine answers, please try again later", 1), DEEPSEEK)

    def _first(self, submission: str, asked_at: float) -> None:
        now = _now()
        self._router.first_token(submission, now)
        self._metrics.observe(metrics.TTFT, now - asked_at, "")

    def _decide(self, prompt: Prompt, tried: Sequence[RankId]) -> Decision | None:
        router = self._router
        view = router.view(sorted(self.reached), _now())
        decision = router.decide(view, Role.UNIFIED, Leg.WHOLE, prompt, tried)
        return decision if isinstance(decision.choice, Choice) else None

    def close(self) -> None:
        """Ends the idle connections."""
        for pool in self.reached.values():
            pool.close()


def _whole(value: msgspec.Raw | None) -> int:
    """A number of the client's, which may be anything; 0 if it is none."""
    text = b"" if value is None else bytes(value)
    return int(text) if text.isdigit() and len(text) < 10 else 0


def text_keys(text: bytes, block_bytes: int) -> list[int]:
    """The chained keys of the text's full blocks; the same in one process only."""
    keys, key = [], 0
    for at in range(0, len(text) - block_bytes + 1, block_bytes):
        key = hash((key, text[at : at + block_bytes]))
        keys.append(key)
    return keys


def _read(body: bytes) -> dict[str, msgspec.Raw] | ApiError:
    """The fields of a body, unread; or why the engine must not see it."""
    if not body:
        return {}
    try:
        fields = _fields(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # An engine may read what we cannot, and find there what it is not to find.
        return bad_request("The request body is not a JSON object")
    if "kv_transfer_params" in fields:
        # A reference used twice makes an engine answer with another prompt's text.
        return bad_request("kv_transfer_params are not a client's to set")
    return fields


def _request(scope: Scope, body: bytes) -> bytes:
    """The request as the engine gets it."""
    target: bytes = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = [b"%b %b HTTP/1.1\r\nhost: engine\r\n" % (scope["method"].encode(), target)]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in scope["headers"] if name not in _HOP]
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    return b"".join((*lines, body))


async def _fresh(pool: Pool) -> Upstream | None:
    try:
        return await pool.fresh()
    except OSError:
        return None


class _Passage(Exchange):
    """One request on one engine: what of its answer waits, and who is woken."""

    def __init__(self, direct: DirectBody | None, stall_s: float) -> None:
        self._direct = direct
        self._stall_s = stall_s
        self.on_first: Callable[[], None] = _nothing
        self._begun = False  # something of the body has come
        self._upstream: Upstream | None = None
        self._awake = asyncio.Event()
        self._head: tuple[int, Sequence[tuple[bytes, bytes]]] | None = None
        self._waiting: list[bytes] = []  # of the body, for `send`
        self._waiting_bytes = 0
        self._flowing = False  # the body goes straight to the socket
        self._ended = False
        self._lost = ""
        self._gone = False

    async def run(self, pool: Pool, request: bytes, receive: Receive, send: Send) -> bool:
        """Passes the answer on; False if the engine gave none and another may be asked."""
        upstream = pool.idle() or await _fresh(pool)
        if upstream is None:
            return False
        self._upstream = upstream
        upstream.begin(request, self)
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch(receive))
                answered = await self._relay(send, upstream)
                watcher.cancel()
        finally:
            if not self._ended:
                upstream.cut()
        return answered

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._awake.set()

    async def _relay(self, send: Send, upstream: Upstream) -> bool:
        await self._awake.wait()
        if self._head is None:
            return self._gone
        status, headers = self._head
        more = [(name, value) for name, value in headers if name not in _HOP]
        await send({"type": "http.response.start", "status": status, "headers": more})
        while not self._gone:
            self._awake.clear()
            waiting = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if waiting:
                if not await self._send(send, waiting):
                    return True
                if not self._ended and not self._lost:
                    upstream.resume()
            elif self._ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return True
            elif self._lost:
                self._cut()  # an answer without its end, as the engine's was
                return True
            else:
                self._flowing = self._direct is not None
                await self._awake.wait()
        return True

    async def _send(self, send: Send, data: bytes) -> bool:
        """False if the client was cut, since it read nothing for too long."""
        try:
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            self._cut()
            return False
        return True

    def _cut(self) -> None:
        if self._direct is not None:
            self._direct.cut()

    # What the engine's connection calls.

    @override
    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._head = status, headers
        self._awake.set()

    @override
    def on_body(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self.on_first()
        direct = self._direct
        if self._flowing and direct is not None and direct.ready():
            direct.write(data)
            return
        self._flowing = False
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_MAX and self._upstream is not None:
            self._upstream.pause()
        self._awake.set()

    @override
    def on_end(self) -> None:
        self._ended = True
        self._awake.set()

    @override
    def on_lost(self, cause: str) -> None:
        self._lost = cause
        self._awake.set()


def _nothing() -> None: ...


def _now() -> float:
    return asyncio.get_running_loop().time()
