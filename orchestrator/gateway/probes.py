"""What the doctor asks of one rank: small requests of its own over a channel of its own.

Nothing here touches a request of anybody else, a tenant, a bill or a metric: the gateway's service
does not know of these requests, and other gateways see them as one more in flight.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import shake_128
from statistics import median

from orchestrator.codec import ControlIds
from orchestrator.core import Finish, KvSource, TokenIds, TokenLogprob, token_ids
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    End,
    EngineInfo,
    EngineLink,
    KvPair,
    RankChannel,
    Sampling,
    Submit,
)
from orchestrator.engines.http import HttpEngine
from orchestrator.fleet.doctor import Answer, Vitals
from orchestrator.gateway.network import HTTP, Member

TRACE_ID = "doctor"  # in engines' logs
DRAWN = 16  # tokens that a probe asks for of a rank that decodes
DRAWN_PREFILLING = 8  # of one that only prefills, whose steps may be slow
ALTERNATIVES = 5
_IDS = range(1_000, 30_000)  # ordinary text in every vocabulary of the catalogue
_LONG = 4_096  # tokens of a request that is to be cancelled


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """How long a probe waits for what."""

    connect_s: float = 5.0
    look_s: float = 2.0
    answer_s: float = 10.0
    events_s: float = 3.0  # for the index to hear of a prompt
    cancel_s: float = 5.0
    rest_s: float = 2.0  # for blocks to be freed
    ranks_at_once: int = 16


def probe_ids(nonce: str, tokens: int) -> TokenIds:
    """A prompt that nobody has asked before; the same for the same nonce."""
    drawn = shake_128(nonce.encode()).digest(2 * tokens)
    numbers = (int.from_bytes(drawn[at : at + 2]) for at in range(0, 2 * tokens, 2))
    return token_ids(_IDS[number % len(_IDS)] for number in numbers)


def thought_ids(control: ControlIds, nonce: str) -> TokenIds:
    """A prompt whose thought has just been opened."""
    asked = probe_ids(nonce, 16)
    return token_ids(
        (control.begin_of_sentence, control.user, *asked, control.assistant, control.think)
    )


@dataclass(slots=True)
class _Heard:
    """One probe's output as it comes."""

    now: Callable[[], float]
    began_at: float
    ids: list[int] = field(default_factory=list)
    best_ids: tuple[int, ...] = ()
    first_at: float | None = None
    last_at: float = 0.0
    gaps_s: list[float] = field(default_factory=list)  # a token, one for each arrival
    end: End | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        """See `TokenSink`."""
        before, self.last_at = self.last_at, self.now()
        if self.first_at is not None:
            self.gaps_s.append((self.last_at - before) / len(ids))
        else:
            self.first_at = self.last_at
            if logprobs:
                self.best_ids = tuple(id_ for id_, _ in logprobs[0].top)
        self.ids.extend(ids)
        self.begun.set()

    def on_end(self, end: End) -> None:
        """See `TokenSink`."""
        self.end = end
        self.begun.set()
        self.over.set()

    def answer(self) -> Answer:
        """What has come by now."""
        end = self.end
        return Answer(
            None if end is None else end.finish.value,
            "" if end is None else end.cause,
            tuple(self.ids),
            0 if end is None else end.cached_tokens,
            None if self.first_at is None else self.first_at - self.began_at,
            median(self.gaps_s) if self.gaps_s else None,
            self.best_ids,
        )


class Patient:
    """One rank under examination."""

    def __init__(self, member: Member, gateway_id: str, limits: ProbeLimits, nonce: str) -> None:
        self.member = member
        self._open = asyncio.Event()  # it was reached
        self._channel = _channel(member, gateway_id, self._changed)
        self._limits = limits
        self._nonce = nonce
        self._asked = 0
        self._now = asyncio.get_running_loop().time

    def _changed(self) -> None:
        if self._channel.state is ChannelState.OPEN:
            self._open.set()

    @property
    def cause(self) -> str:
        """Why it is not reached."""
        return self._channel.cause or "no answer to the hello"

    @property
    def info(self) -> EngineInfo | None:
        """What the engine says of itself, if it was reached."""
        reached = self._channel.state is ChannelState.OPEN
        return self._channel.info if reached else None

    @property
    def drains(self) -> bool:
        """Whether it gets nothing new."""
        return self._channel.drain_at is not None

    async def run(self) -> None:
        """Keeps its channel, until `close`."""
        await self._channel.run()

    def close(self) -> None:
        """What is left of the probes is aborted."""
        self._channel.close()

    async def reach(self) -> None:
        """Waits until it is reached, or for as long as that may take."""
        await _within(self._limits.connect_s, self._open)

    async def look(self) -> tuple[Vitals, float, float] | None:
        """How it does, how far its clock is from ours and how wrong that may be, in seconds; None
        if it does not tell.
        """
        if isinstance(self._channel, EngineLink):
            return None
        answered: asyncio.Future[Vitals] = asyncio.get_running_loop().create_future()

        def on_vitals(vitals: Vitals) -> None:
            if not answered.done():
                answered.set_result(vitals)

        sent_s = datetime.now(UTC).timestamp()
        self._channel.look(on_vitals)
        try:
            async with asyncio.timeout(self._limits.look_s):
                vitals = await answered
        except TimeoutError:
            return None
        got_s = datetime.now(UTC).timestamp()
        return vitals, vitals.unix_s - (sent_s + got_s) / 2, (got_s - sent_s) / 2

    async def ask(
        self, ids: TokenIds, salt: str, tokens: int, thinking_budget: int | None = None
    ) -> Answer:
        """A request that it computes alone."""
        answer, _ = await self._send(ids, salt, tokens, thinking_budget=thinking_budget)
        return answer

    async def produce(self, ids: TokenIds, salt: str, pair: KvPair | None) -> tuple[Answer, End]:
        """The prompt's KV, for another rank; the end has what leads to it."""
        answer, end = await self._send(ids, salt, 1, KvSource.PRODUCE, pair=pair)
        return answer, end

    async def take(
        self, ids: TokenIds, salt: str, kv_params: dict[str, object] | None, pair: KvPair | None
    ) -> Answer:
        """A request that goes on from another rank's KV."""
        answer, _ = await self._send(ids, salt, 4, KvSource.TRANSFER, kv_params, pair)
        return answer

    async def cancelled(self, ids: TokenIds, salt: str, max_model_len: int) -> float | None:
        """How long a request lives on after its client has left it, in seconds; None: it does."""
        tokens = max(1, min(_LONG, max_model_len - len(ids) - 1))
        submit = self._submit(ids, salt, tokens)
        heard = _Heard(self._now, self._now())
        self._channel.submit(submit, heard)
        await _within(self._limits.answer_s, heard.begun)
        left_at = self._now()
        self._channel.cancel(submit.request_id)
        ended = await _within(self._limits.cancel_s, heard.over)
        return self._now() - left_at if ended else None

    async def _send(
        self,
        ids: TokenIds,
        salt: str,
        tokens: int,
        source: KvSource = KvSource.LOCAL,
        kv_params: dict[str, object] | None = None,
        pair: KvPair | None = None,
        thinking_budget: int | None = None,
    ) -> tuple[Answer, End]:
        submit = self._submit(ids, salt, tokens, source, kv_params, pair, thinking_budget)
        heard = _Heard(self._now, self._now())
        self._channel.submit(submit, heard)
        if not await _within(self._limits.answer_s, heard.over):
            self._channel.cancel(submit.request_id)
        return heard.answer(), heard.end or _NO_END

    def _submit(
        self,
        ids: TokenIds,
        salt: str,
        tokens: int,
        source: KvSource = KvSource.LOCAL,
        kv_params: dict[str, object] | None = None,
        pair: KvPair | None = None,
        thinking_budget: int | None = None,
    ) -> Submit:
        self._asked += 1
        produces = source is KvSource.PRODUCE
        sampling = Sampling(
            max_tokens=tokens,
            temperature=0.0,
            top_p=1.0,
            stop_token_ids=(),
            logprobs=None if produces or thinking_budget is not None else ALTERNATIVES,
            thinking_budget=thinking_budget,
        )
        request_id = f"{TRACE_ID}-{self._nonce}-{self._asked}"
        return Submit(request_id, ids, sampling, source, kv_params, TRACE_ID, salt, 0.0, pair)


_NO_END = End(Finish.FAILED, cause="no end in time")


async def _within(limit_s: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def patients(
    members: Sequence[Member], gateway_id: str, limits: ProbeLimits, nonce: str
) -> list[Patient]:
    """One for each; `run` of each must run beside what is asked of it."""
    return [
        Patient(member, gateway_id, limits, f"{nonce}-{at}") for at, member in enumerate(members)
    ]


def _channel(
    member: Member, gateway_id: str, on_state: Callable[[], None]
) -> RankChannel | EngineLink:
    if member.address.startswith(HTTP):
        server = member.address.removeprefix(HTTP)
        return EngineLink(lambda: HttpEngine(server), member.role, 8, lambda _: on_state())
    limits = ChannelLimits(max_requests=8)
    return RankChannel(
        member.address,
        member.engine_id,
        gateway_id=f"{TRACE_ID} of {gateway_id}",
        limits=limits,
        on_state=lambda _: on_state(),
    )
