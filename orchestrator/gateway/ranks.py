"""The ranks that this gateway knows: their channels, and what it has in flight at each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.core import FleetView, RankId, RankView, Role
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    End,
    EngineLink,
    RankChannel,
    Submit,
    TokenSink,
)
from orchestrator.engines.http import HttpEngine
from orchestrator.gateway.supervisor import Supervisor

HTTP = "http://"  # begins the address of an engine behind a server of its own


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the fleet lists it. `engine_id` is new for each life of its gang."""

    rank_id: RankId
    role: Role
    address: str  # host:port of its token channel, or http://host:port of an engine's own server
    engine_id: str


@dataclass(slots=True)
class _Rank:
    member: Member
    channel: RankChannel | EngineLink
    listed: bool = True  # an unlisted rank drains: nothing new goes there
    in_flight: dict[str, int] = field(default_factory=dict)  # request id -> tokens
    tokens: int = 0


class Ranks:
    """Channels to every listed rank and the in-flight ledger; all on one event loop."""

    def __init__(
        self,
        gateway_id: str,
        limits: ChannelLimits,
        supervisor: Supervisor,
        on_change: Callable[[], None],
    ) -> None:
        self._gateway_id = gateway_id
        self._limits = limits
        self._supervisor = supervisor
        self._on_change = on_change
        self._ranks: dict[RankId, _Rank] = {}

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
        self._on_change()

    def view(self, now: float) -> FleetView:
        """The ranks that can take requests now."""
        return FleetView(
            tuple(
                self._seen(rank)
                for _, rank in sorted(self._ranks.items())
                if rank.listed and rank.channel.state is ChannelState.OPEN
            ),
            now,
        )

    def submit(self, rank_id: RankId, submit: Submit, sink: TokenSink) -> None:
        """Sends to the rank and books it until its end; a rank that has gone ends it as LOST."""
        rank = self._ranks[rank_id]
        tokens = len(submit.prompt_ids) + submit.sampling.max_tokens
        rank.in_flight[submit.request_id] = tokens
        rank.tokens += tokens
        rank.channel.submit(submit, _Booked(self, rank, submit.request_id, sink))

    def cancel(self, rank_id: RankId, request_id: str) -> None:
        """Ends a submission; a rank that has gone is no error, its ends have come already."""
        if (rank := self._ranks.get(rank_id)) is not None:
            rank.channel.cancel(request_id)

    def _open(self, member: Member) -> None:
        channel = self._link(member)
        self._ranks[member.rank_id] = _Rank(member, channel)
        self._supervisor.spawn(channel.run())

    def _link(self, member: Member) -> RankChannel | EngineLink:
        if member.address.startswith(HTTP):
            server = member.address.removeprefix(HTTP)
            return EngineLink(
                lambda: HttpEngine(server),
                member.role,
                self._limits.max_requests,
                lambda _: self._on_change(),
            )
        return RankChannel(
            member.address,
            member.engine_id,
            gateway_id=self._gateway_id,
            limits=self._limits,
            on_state=lambda _: self._on_change(),
        )

    def _release(self, rank: _Rank, request_id: str) -> None:
        rank.tokens -= rank.in_flight.pop(request_id)
        self._retire(rank)
        self._on_change()

    def _seen(self, rank: _Rank) -> RankView:
        load = rank.channel.load
        return RankView(
            rank.member.rank_id,
            rank.member.role,
            len(rank.in_flight),
            rank.tokens,
            self._limits.max_requests,
            load.running if load else 0,
            load.waiting if load else 0,
        )

    def _retire(self, rank: _Rank) -> None:
        if not rank.listed and not rank.in_flight and rank.member.rank_id in self._ranks:
            del self._ranks[rank.member.rank_id]
            rank.channel.close()


class _Booked:
    """Passes a submission's output on and takes it off the ledger at its end."""

    __slots__ = ("_rank", "_ranks", "_request_id", "_sink", "on_tokens")

    def __init__(self, ranks: Ranks, rank: _Rank, request_id: str, sink: TokenSink) -> None:
        self._ranks = ranks
        self._rank = rank
        self._request_id = request_id
        self._sink = sink
        self.on_tokens = sink.on_tokens

    def on_end(self, end: End) -> None:
        self._ranks._release(self._rank, self._request_id)
        self._sink.on_end(end)
