"""The ranks that this gateway knows: their channels, and routing's memory of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from orchestrator import routing
from orchestrator.core import FleetView, KvParams, RankId, Role, TokenLogprob
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    End,
    EngineInfo,
    EngineLoad,
    Finish,
    Submit,
    TokenSink,
)
from orchestrator.engines.kv_events import HashMismatchError, KvHashing, check_hashing
from orchestrator.fleet.doctor import EventsSeen
from orchestrator.gateway.network import Channel, Events, Member, Network
from orchestrator.gateway.pool_measures import RankSeen
from orchestrator.gateway.supervisor import Supervisor
from orchestrator.handoff import Word
from orchestrator.spec import ModelSpec, Spec
from orchestrator.telemetry import Log

LOADS_EVERY_S = 0.05  # how old a heartbeat may be before routing hears of it
INDEX_BLOCKS_MAX = 4_000_000  # what 512 ranks of 8,000 blocks hold; some 200 bytes each


@dataclass(slots=True)
class _Rank:
    member: Member
    channel: Channel
    listed: bool = True  # an unlisted rank drains: nothing new goes there
    joined: bool = False  # routing knows it
    refused: str = ""  # why it does not fit the others, and gets nothing
    load: EngineLoad | None = None  # the last that routing was told
    events: Events | None = None
    events_fault: str = ""  # what was last wrong with them


@dataclass(frozen=True, slots=True)
class Listed:
    """A rank as the fleet lists it, and how this gateway gets on with it."""

    member: Member
    refused: str
    events: EventsSeen | None


class Ranks:
    """Channels to every listed rank of one model, and its router; all on one event loop."""

    def __init__(
        self,
        limits: ChannelLimits,
        supervisor: Supervisor,
        on_change: Callable[[], None],
        now: Callable[[], float],
        log: Log,
        network: Network,
        costs: routing.Costs | None = None,
        on_word: Callable[[Word], None] = lambda word: None,
    ) -> None:
        """`costs` None: unknown, and so are prices."""
        self._limits = limits
        self._supervisor = supervisor
        self._on_change = on_change
        self._now = now
        self._log = log
        self._network = network
        self._on_word = on_word
        self.costs = costs or routing.same_costs(routing.DEFAULT_COSTS)
        self._priced = costs is not None
        self.credits: dict[Role, int] = {}  # open requests at a rank; others: the channel's limit
        self._ranks: dict[RankId, _Rank] = {}
        self._hashing: KvHashing | None = None  # of the first rank, and so of all
        self._router: routing.Router | None = None  # from the first rank on
        self._reachable: list[RankId] | None = None  # None: to be looked up
        self._loads_at = 0.0  # when heartbeats are read again

    @property
    def router(self) -> routing.Router:
        """Routing's memory; there is one as soon as a view has had a rank."""
        assert self._router is not None
        return self._router

    def update(self, role: Role, members: Sequence[Member]) -> None:
        """The fleet's list of the ranks of one role, which replaces the one before."""
        listed = {member.rank_id: member for member in members}
        for rank_id, member in listed.items():
            if rank_id not in self._ranks:
                self._open(member)
        for rank in list(self._ranks.values()):
            if rank.member.role is role:
                rank.listed = rank.member.rank_id in listed
                self._retire(rank)
        self._reachable = None
        self._on_change()

    def view(self, now: float) -> FleetView:
        """The ranks that can take requests now."""
        if self._router is None:
            return FleetView((), now)
        if self._reachable is None:
            self._reachable = sorted(
                rank_id
                for rank_id, rank in self._ranks.items()
                if rank.listed
                and rank.joined
                and rank.channel.state is ChannelState.OPEN
                and rank.channel.drain_at is None
            )
        if now >= self._loads_at:
            self._loads_at = now + LOADS_EVERY_S
            self._read_loads(self._router, now)
        return self._router.view(self._reachable, now)

    def _read_loads(self, router: routing.Router, now: float) -> None:
        """Tells routing what the heartbeats since the last call have said."""
        for rank_id, rank in self._ranks.items():
            load = rank.channel.load
            if rank.joined and load is not None and load is not rank.load:
                rank.load = load
                others = rank.channel.others
                router.ledger.reported(rank_id, load.running, load.waiting, now, others)

    def seen(self) -> list[RankSeen]:
        """The ranks that are open, as they are now, whoever may be sent there."""
        return [
            RankSeen(
                rank_id,
                rank.member.role,
                rank.member.engine_id,
                rank.channel.load,
                rank.channel.info,
                self.router.index.fed(rank_id),
            )
            for rank_id, rank in self._ranks.items()
            if rank.joined and rank.channel.state is ChannelState.OPEN
        ]

    def drains(self) -> dict[RankId, float]:
        """The ranks that drain, and when what runs there is to be moved."""
        return {
            rank_id: drain_at
            for rank_id, rank in self._ranks.items()
            if (drain_at := rank.channel.drain_at) is not None
        }

    def drop_events(self, lasts_s: float) -> int:
        """Loses all KV events for a while; returns of how many ranks."""
        heard = [rank.events for rank in self._ranks.values() if rank.events is not None]
        for events in heard:
            events.drop(lasts_s)
        return len(heard)

    def say(self, word: Word) -> None:
        """Tells the other gateways, through every rank that they may share."""
        for rank in self._ranks.values():
            rank.channel.say(word)

    def arrived(self) -> None:
        """A request is being routed for the first time."""
        if self._router is not None:
            self._router.arrived(self._now())

    def drew(self, output_tokens: int) -> None:
        """A request has ended with so many tokens of output."""
        if self._router is not None and output_tokens:
            self._router.ledger.drew(output_tokens)

    def tick(self) -> None:
        """Time has passed."""
        if self._router is not None:
            self._router.tick(self._now())

    def kv_batches(self) -> dict[str, int]:
        """What became of the KV event batches of the ranks that are known."""
        found = dict.fromkeys(("applied", "repeated", "lost", "malformed"), 0)
        for rank in self._ranks.values():
            if (events := rank.events) is not None:
                found["applied"] += events.stream.counts.applied
                found["repeated"] += events.stream.counts.repeated
                found["lost"] += events.stream.counts.lost
                found["malformed"] += events.malformed
        return found

    def listed(self) -> list[Listed]:
        """Every rank that the fleet lists, whether it is reached or not."""
        return [
            Listed(rank.member, rank.refused, self._events_of(rank))
            for rank in self._ranks.values()
            if rank.listed
        ]

    def _events_of(self, rank: _Rank) -> EventsSeen | None:
        if rank.events is None or self._router is None:
            return None
        followed = self._router.index.fed(rank.member.rank_id)
        fault = "" if followed else rank.events_fault or "its events are not followed"
        return EventsSeen(rank.events.stream.counts.lost, fault)

    def indexed_tokens(self, rank_id: RankId, prompt: routing.Prompt) -> int | None:
        """How much of the prompt the rank's KV events say that it holds; None without events."""
        if self._router is None or not self._router.index.fed(rank_id):
            return None
        block = self._router.index.block_tokens
        keys = routing.prompt_keys(prompt.ids, block, prompt.salt)
        blocks = self._router.index.hits(keys).sure.get(rank_id, 0)
        return min(blocks, (len(prompt.ids) - 1) // block) * block

    def decide(
        self,
        role: Role,
        leg: routing.Leg,
        prompt: routing.Prompt,
        excluded: Collection[RankId],
    ) -> routing.Decision:
        """Where one leg of a request goes."""
        view = self.view(self._now())
        if self._router is None:
            return routing.nowhere(view, role, leg, prompt, excluded)
        return self._router.decide(view, role, leg, prompt, excluded)

    def price(
        self, decoder: Role, prompt: routing.Prompt, tpot_s: float | None
    ) -> routing.Prices | None:
        """What the ways to the prompt's KV cost; None where costs are unknown or there is one."""
        if self._router is None or not self._priced:
            return None
        return self._router.price(self.view(self._now()), decoder, prompt, tpot_s)

    def submit(
        self, decision: routing.Decision, prompt: routing.Prompt, submit: Submit, sink: TokenSink
    ) -> None:
        """Sends to the rank and books it until its end; a rank that has gone ends it as LOST."""
        assert isinstance(decision.choice, routing.Choice)
        rank = self._ranks[decision.choice.rank_id]
        self.router.sent(submit.request_id, decision, prompt, self._now())
        rank.channel.submit(submit, _Booked(self, rank, submit.request_id, sink))

    def kv_peer(self, rank_id: RankId) -> KvParams:
        """What the other rank of a transfer must know of this one; nothing of one that has gone."""
        rank = self._ranks.get(rank_id)
        info = None if rank is None else rank.channel.info
        return {} if info is None else info.kv_peer or {}

    def keeps_budgets(self, rank_id: RankId) -> bool:
        """Whether its engine closes a thought when it is told to."""
        info = self._ranks[rank_id].channel.info
        return info is not None and info.grammar

    def cancel(self, rank_id: RankId, request_id: str) -> None:
        """Ends a submission; a rank that has gone is no error, its ends have come already."""
        if (rank := self._ranks.get(rank_id)) is not None:
            rank.channel.cancel(request_id)

    # --- channels ----------------------------------------------------------------------------

    def _open(self, member: Member) -> None:
        channel = self._network.channel(
            member, lambda: self._channel_changed(member.rank_id), self._on_word
        )
        self._ranks[member.rank_id] = _Rank(member, channel)
        self._supervisor.spawn(channel.run())

    def _channel_changed(self, rank_id: RankId) -> None:
        rank = self._ranks.get(rank_id)
        if rank is not None and not rank.joined and not rank.refused:
            info = rank.channel.info
            if info is not None and rank.channel.state is ChannelState.OPEN:
                self._join(rank, info)
        self._reachable = None
        self._on_change()

    def _join(self, rank: _Rank, info: EngineInfo) -> None:
        """The engine has said what it is: it takes part in routing, or is refused."""
        found = KvHashing.of(info)
        try:
            check_hashing(rank.member.rank_id, self._hashing or found, found)
        except HashMismatchError as error:
            rank.refused = error.cause
            self._log.error("rank_refused", rank_id=rank.member.rank_id, cause=str(error))
            return
        if self._hashing is None or not self._hashing.algorithm:
            self._hashing = found
        if self._router is None:
            self._router = routing.Router(info.block_size, INDEX_BLOCKS_MAX, self.costs)
        member = rank.member
        kv_tokens = info.kv_blocks * info.block_size
        rank.joined = True
        self._router.join(
            routing.Member(
                member.rank_id,
                member.role,
                self.credits.get(member.role, self._limits.max_requests),
                0,
                kv_tokens,
            ),
            kv_events=info.kv_events is not None,
        )
        if info.kv_events is not None:
            rank.events = self._network.events(
                member,
                info,
                found,
                self._router,
                lambda cause: self._events_fault(rank, cause),
            )
            self._supervisor.spawn(rank.events.run())

    def _events_fault(self, rank: _Rank, cause: str) -> None:
        rank.events_fault = cause
        self._log.warning("kv_events_fault", rank_id=rank.member.rank_id, cause=cause)

    def _first_token(self, request_id: str) -> None:
        self.router.first_token(request_id, self._now())

    def _release(self, rank: _Rank, request_id: str, end: End) -> None:
        if end.finish is Finish.LOST:
            self._reachable = None  # the channel tells of its new state after all its ends
        self.router.ended(request_id, self._now(), end.cached_tokens)
        self._retire(rank)
        self._on_change()

    def _retire(self, rank: _Rank) -> None:
        rank_id = rank.member.rank_id
        if rank.listed or rank_id not in self._ranks:
            return
        if rank.joined:
            if self.router.ledger.in_flight(rank_id):
                return
            self.router.leave(rank_id)
        del self._ranks[rank_id]
        rank.channel.close()
        if rank.events is not None:
            rank.events.close()


class _Booked:
    """Passes a submission's output on; tells routing of its first token and of its end."""

    __slots__ = ("_rank", "_ranks", "_request_id", "_sink", "on_tokens")

    def __init__(self, ranks: Ranks, rank: _Rank, request_id: str, sink: TokenSink) -> None:
        self._ranks = ranks
        self._rank = rank
        self._request_id = request_id
        self._sink = sink
        self.on_tokens = self._first

    def _first(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self._ranks._first_token(self._request_id)
        self._sink.on_tokens(ids, logprobs)
        self.on_tokens = self._sink.on_tokens  # for all that follow, at no cost

    def on_end(self, end: End) -> None:
        self._ranks._release(self._rank, self._request_id, end)
        self._sink.on_end(end)


def costs_of(model: ModelSpec) -> routing.Costs | None:
    """Of a rank of each pool, if the spec knows those of all."""
    known = {pool.role: pool.costs for pool in model.pools if pool.costs is not None}
    return known if len(known) == len(model.pools) else None


def credits_of(spec: Spec) -> int:
    """Requests that this gateway may have open at one rank that decodes: its share."""
    most = spec.admission.rank_requests_max
    if most is None:
        return spec.channel.max_requests
    return min(spec.channel.max_requests, -(-most // spec.gateway.replicas))
