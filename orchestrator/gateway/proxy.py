"""Passes requests through to engines that speak OpenAI's API themselves, byte for byte.

What is decided here is only where a request goes. An answer's body goes from one socket to the
other in one call, without being read.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from typing_extensions import override

from orchestrator.core import RankId, Role
from orchestrator.engines.http import Call, Exchange, Headers, Pool
from orchestrator.gateway.client_connection import ClientConnection, Flow
from orchestrator.gateway.errors import ApiError, bad_request, overloaded
from orchestrator.gateway.request_reader import Request
from orchestrator.routing import Choice, Leg, Member, Prompt, Router
from orchestrator.telemetry import Metrics, metrics

ATTEMPTS_MAX = 3
KV_TOKENS_ASSUMED = 262_144  # in the cache of an engine that does not say how many
TOKEN_BYTES = 4  # of a prompt's JSON, about: nothing is tokenised here


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """What one gateway bounds."""

    requests_max: int = 1_024  # open at one engine
    block_tokens: int = 128  # of what is remembered of prompts: finer ones cost more than they tell
    blocks_max: int = 1_000_000
    stall_s: float = 60.0  # a client that reads nothing for so long is cut
    max_body_bytes: int = 8 << 20


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOTHING = msgspec.Raw(b"")


class Proxy:
    """Decides for each request which engine it goes to, and passes it there."""

    def __init__(self, router: Router, limits: ProxyLimits, metrics: Metrics) -> None:
        self._router = router
        self._limits = limits
        self._metrics = metrics
        self._asked = 0
        self._loop = asyncio.get_running_loop()
        self.reached: dict[RankId, Pool] = {}  # the engines that can be chosen

    def join(self, rank_id: RankId, pool: Pool, kv_tokens: int) -> None:
        """An engine can be chosen from now on; `kv_tokens` fit into its cache, 0 if unknown."""
        kv_tokens = kv_tokens or KV_TOKENS_ASSUMED
        member = Member(rank_id, Role.UNIFIED, self._limits.requests_max, kv_tokens=kv_tokens)
        self._router.join(member, kv_events=False)
        self.reached = dict(sorted([*self.reached.items(), (rank_id, pool)]))

    def _leave(self, rank_id: RankId) -> None:
        """It does not answer: it is not chosen again before it is found to."""
        if self.reached.pop(rank_id, None) is not None:
            self._router.leave(rank_id)

    def on_request(self, client: ClientConnection, request: Request) -> None:
        """Has it answered as an engine does, or says why none can."""
        asked = _read(request.body)
        if isinstance(asked, ApiError):
            client.fail(asked)
            return
        passage = _Passage(self, client, request, self._prompt(asked))
        client.flow = passage
        passage.go()

    def _prompt(self, asked: Mapping[str, msgspec.Raw]) -> Prompt:
        """What routing needs to know, from the text alone: an engine's own tokens are its own."""
        router = self._router
        router.arrived(self._loop.time())
        text = bytes(asked.get("messages", _NOTHING)) + bytes(asked.get("prompt", _NOTHING))
        keys = text_keys(text, router.index.block_tokens * TOKEN_BYTES)
        return Prompt(
            range(max(1, len(text) // TOKEN_BYTES)), _whole(asked.get("max_tokens")), keys=keys
        )

    # What passages call.

    def send(self, passage: "_Passage") -> bool:
        """Sends it to the engine where it costs least, of those it has not been at; False if there
        is none.
        """
        router, now = self._router, self._loop.time()
        view = router.view(self.reached, now)
        prompt = passage.prompt
        decision = router.decide(view, Role.UNIFIED, Leg.WHOLE, prompt, passage.tried)
        if not isinstance(decision.choice, Choice):
            return False
        self._asked += 1
        passage.submission = str(self._asked)
        passage.sent_at = now
        passage.rank_id = rank_id = decision.choice.rank_id
        router.sent(passage.submission, decision, prompt, now)
        passage.call = self.reached[rank_id].ask(
            passage.bytes, passage, bodiless=passage.request.method == b"HEAD"
        )
        return True

    def began(self, passage: "_Passage") -> None:
        """The first of its answer has come."""
        now = self._loop.time()
        self._router.first_token(passage.submission, now)
        self._metrics.observe(metrics.TTFT, now - passage.sent_at, "", "")

    def ended(self, passage: "_Passage") -> None:
        """It is over at its engine, whatever the way."""
        self._router.ended(passage.submission, self._loop.time())

    def failed(self, passage: "_Passage") -> None:
        """Its engine gave no answer."""
        self.ended(passage)
        self._leave(passage.rank_id)


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


def _bytes(request: Request) -> bytes:
    """The request as the engine gets it."""
    lines = [b"%b %b HTTP/1.1\r\nhost: engine\r\n" % (request.method, request.target)]
    lines += [b"%b: %b\r\n" % header for header in request.headers]
    lines.append(b"content-length: %d\r\n\r\n" % len(request.body))
    return b"".join((*lines, request.body))


class _Passage(Exchange, Flow):
    """One request: on its way to an engine, then its answer on its way to the client.

    The answer's head waits for what follows it. So until the first token an engine that breaks off
    costs nothing but time: another is asked.
    """

    def __init__(
        self, proxy: Proxy, client: ClientConnection, request: Request, prompt: Prompt
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._head: tuple[int, Headers] = (0, ())
        self._passed = False  # the client has had the first of it
        self.request = request
        self.bytes = _bytes(request)
        self.prompt = prompt
        self.tried: list[RankId] = []
        self.call: Call | None = None
        self.submission = ""
        self.rank_id = RankId("")
        self.sent_at = 0.0

    def go(self) -> None:
        """To an engine, or the answer is that there is none."""
        if len(self.tried) == ATTEMPTS_MAX or not self._proxy.send(self):
            self._client.fail(overloaded("No engine answers, please try again later", 1))

    # What the engine's connection calls.

    @override
    def on_head(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    @override
    def on_body(self, data: bytes) -> None:
        if not self._passed:
            self._begin()
        self._client.write(data)

    def _begin(self) -> None:
        self._passed = True
        self._client.start(*self._head)
        self._proxy.began(self)

    @override
    def on_end(self, data: bytes) -> None:
        if not self._passed:
            self._begin()
        self._proxy.ended(self)
        self._client.end(data)

    @override
    def on_lost(self, cause: str) -> None:
        if self._passed:
            self._proxy.ended(self)
            self._client.cut()  # an answer without its end, as the engine's was
            return
        self._proxy.failed(self)
        self.tried.append(self.rank_id)
        self.go()

    # What the client's connection calls.

    @override
    def on_gone(self) -> None:
        if self.call is not None:
            self.call.cut()
        self._proxy.ended(self)

    @override
    def on_slow(self) -> None:
        if self.call is not None:
            self.call.pause()

    @override
    def on_ready(self) -> None:
        if self.call is not None:
            self.call.resume()
