"""What a simulated gateway is connected by: the face of `gateway.network` over virtual time.

Nothing is delayed that production does not see delayed: loads are those of the last heartbeat, KV
events come late, out of order or not at all, and a cut is noticed when silence has lasted.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from orchestrator.core import Finish, KvSource
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    End,
    EngineInfo,
    EngineLoad,
    KvEventSource,
    Submit,
    TokenSink,
)
from orchestrator.engines.kv_events import KvHashing
from orchestrator.gateway import Channel, Events, Member, Network
from orchestrator.handoff import Word
from orchestrator.routing import Router, prompt_keys
from orchestrator.sim.call import Call
from orchestrator.sim.gang import Gang
from orchestrator.sim.job import Job, Pull
from orchestrator.sim.kv_path import SimEvents

if TYPE_CHECKING:
    from orchestrator.sim.world import World

CONNECT_S = 0.01  # a TCP connection and a handshake inside one data centre


class SimNetwork(Network):
    """The network of one simulated gateway."""

    def __init__(self, gateway_id: str, world: "World", limits: ChannelLimits) -> None:
        super().__init__(gateway_id, limits)
        self.gateway_id = gateway_id
        self.world = world
        self.limits = limits
        self.channels: dict[str, list[SimChannel]] = {}  # by engine id
        self.streams: list[SimEvents] = []

    @override
    def channel(
        self,
        member: Member,
        on_state: Callable[[], None],
        on_word: Callable[[Word], None],
    ) -> Channel:
        found = SimChannel(self, member, on_state, on_word)
        self.channels.setdefault(member.engine_id, []).append(found)
        return found

    @override
    def events(
        self,
        member: Member,
        info: EngineInfo,
        hashing: KvHashing,
        router: Router,
        on_fault: Callable[[str], None],
    ) -> Events:
        found = SimEvents(self.world, self.gateway_id, member, router)
        self.streams = [stream for stream in self.streams if not stream.closed]
        self.streams.append(found)
        return found

    def forget(self, channel: "SimChannel") -> None:
        """The channel is closed for good."""
        known = self.channels[channel.member.engine_id]
        known.remove(channel)
        if not known:
            del self.channels[channel.member.engine_id]


class SimChannel:
    """A channel to one rank of a gang that is arithmetic."""

    def __init__(
        self,
        network: SimNetwork,
        member: Member,
        on_state: Callable[[], None],
        on_word: Callable[[Word], None],
    ) -> None:
        self.member = member
        self.state = ChannelState.CONNECTING
        self.info: EngineInfo | None = None
        self.open: dict[str, _Open] = {}
        self._network = network
        self.world = network.world
        self._on_state = on_state
        self.on_word = on_word
        self._rank = int(member.rank_id.rpartition("/")[2])
        self._loads = self.world.pools.loads
        self._key = (member.engine_id, self._rank)
        self._closed = False
        self._cut = False  # nothing passes, and nobody has noticed yet, or it has been noticed
        self.world.agenda.at(self.world.agenda.now + CONNECT_S, self._connect)

    @property
    def load(self) -> EngineLoad | None:
        """As of the last heartbeat that has passed."""
        return None if self._cut else self._loads.get(self._key)

    @property
    def others(self) -> None:
        """Not simulated: a report implies it."""
        return None

    @property
    def drain_at(self) -> float | None:
        """When what runs there is to be moved; None: it does not drain."""
        return self.world.pools.drains.get(self.member.engine_id)

    def bring(self) -> None:
        """Hands on what has been drawn by now, which else waits until somebody must know."""
        gang = self.world.pools.gang(self.member.engine_id)
        if gang is not None and not self._cut:
            for opened in list(self.open.values()):
                if opened.job is not None:
                    opened.bring(gang.emitted(opened.job))

    async def run(self) -> None:
        """Nothing to await in virtual time."""

    def submit(self, submit: Submit, sink: TokenSink) -> None:
        """Sends a request. Never raises and never calls the sink from inside."""
        gang = self.world.pools.gang(self.member.engine_id)
        if self.state is not ChannelState.OPEN or gang is None:
            self._refuse(sink, "the rank cannot be reached")
        elif len(self.open) >= self._network.limits.max_requests:
            self._refuse(sink, f"the rank's {self._network.limits.max_requests} are all in use")
        else:
            opened = _Open(self, submit.request_id, sink)
            self.open[submit.request_id] = opened
            opened.job = self._job(submit, opened)
            if not self._cut:
                gang.submit(self._rank, opened.job, self.world.agenda.now)

    def _refuse(self, sink: TokenSink, cause: str) -> None:
        self.world.agenda.soon(lambda: sink.on_end(End(Finish.LOST, cause=cause)))

    def _job(self, submit: Submit, opened: "_Open") -> Job:
        call = self.world.calls.get(submit.trace_id)
        ids = submit.prompt_ids
        if call is None:  # its client has gone: whatever this is for, nobody reads more of it
            call = Call(-1, 0.0, len(ids), 1)
        left = call.output_tokens - (len(ids) - call.prompt_tokens)
        drawn = min(left, submit.sampling.max_tokens)
        opened.most = drawn
        block = self.world.block_tokens
        if len(ids) > call.prompt_tokens:
            keys: Sequence[int] = prompt_keys(ids, block)
        else:
            if call.keys is None:
                call.keys = prompt_keys(ids, block)
            keys = call.keys
        pull = None
        if submit.kv_source is KvSource.TRANSFER:
            assert submit.kv_params is not None
            pull = Pull(str(submit.kv_params["engine"]), str(submit.kv_params["submission"]))
        return Job(
            submission=submit.request_id,
            outlet=opened,
            prompt_tokens=len(ids),
            prompt_ids=ids,
            keys=keys,
            output_tokens=1 if submit.kv_source is KvSource.PRODUCE else max(drawn, 1),
            source=submit.kv_source,
            finish=Finish.STOP if left <= drawn else Finish.LENGTH,
            pull=pull,
            poison=call.poison,
        )

    def cancel(self, request_id: str) -> None:
        """Ends a request; unknown ids are ignored."""
        opened = self.open.get(request_id)
        gang = self.world.pools.gang(self.member.engine_id)
        if opened is not None and opened.job is not None and gang is not None and not self._cut:
            gang.abort(opened.job, self.world.agenda.now)

    def say(self, word: Word) -> None:
        """Tells the rank's other gateways."""
        if self.state is not ChannelState.OPEN or self._cut:
            return
        for gateway in self.world.gateways:
            for channel in gateway.network.channels.get(self.member.engine_id, ()):
                if channel is not self and channel.member == self.member and not channel.deaf:
                    channel.on_word(word)

    def close(self) -> None:
        """For good; what is open ends as LOST."""
        if not self._closed:
            self._closed = True
            self._network.forget(self)
            self._lose("the channel was closed")

    def drop(self) -> None:
        """The gateway's process has ended: the engine cancels what was its, and nobody is told."""
        for request_id, opened in list(self.open.items()):
            self.cancel(request_id)
            opened.lost = True
        self._closed = True
        self.open.clear()
        self._network.forget(self)

    # --- what happens to it --------------------------------------------------------------------

    def _connect(self, now: float) -> None:
        if self._closed or self._cut or self.state is ChannelState.OPEN:
            return
        gang = self.world.pools.gang(self.member.engine_id)
        if gang is None:
            self.state = ChannelState.LOST
        else:
            self.info = self.world.engine_info(gang)
            self.state = ChannelState.OPEN
        self._on_state()

    def lose(self, cause: str) -> None:
        """The engine has died: what it has drawn has arrived, and its end is known at once."""
        self.bring()
        self._lose(cause, died=True)

    def cut(self, now: float) -> None:
        """The link is down: nothing passes, which either side notices after `lost_after_s`."""
        if not self._cut and not self._closed:
            self._cut = True
            self.world.agenda.at(now + self._network.limits.lost_after_s, self._notice)

    def heal(self, now: float) -> None:
        """The link is up again."""
        if self._cut:
            self._notice(now)
            self._cut = False
            self._connect(now)

    def _notice(self, now: float) -> None:
        if not self._cut or self._closed:
            return
        gang = self.world.pools.gang(self.member.engine_id)
        if gang is not None:
            for opened in self.open.values():
                if opened.job is not None:
                    gang.abort(opened.job, now)
        self._lose("the peer has been silent for too long")

    def _lose(self, cause: str, *, died: bool = False) -> None:
        was, self.state = self.state, ChannelState.LOST
        lost = list(self.open.values())
        self.open.clear()
        for opened in lost:
            opened.lost = True
            opened.sink.on_end(End(Finish.LOST, cause=cause, died=died))
        if was is not ChannelState.LOST or lost:
            self._on_state()

    @property
    def deaf(self) -> bool:
        """Whether nothing passes."""
        return self._cut


class _Open:
    """One submission on its channel: an `Outlet` for the gang."""

    __slots__ = ("channel", "job", "lost", "most", "sink", "submission", "told")

    def __init__(self, channel: SimChannel, submission: str, sink: TokenSink) -> None:
        self.channel = channel
        self.submission = submission
        self.sink = sink
        self.job: Job | None = None
        self.told = 0  # tokens
        self.most = 1  # of them; 0 if the next one is the stop token, which is no output
        self.lost = False  # the connection that it was sent on is gone, and its end was told

    def on_first(self, job: Job, now: float) -> None:
        """Its first token is there."""
        if not self.channel.deaf and not self.lost:
            self.bring(1)

    def bring(self, emitted: int) -> None:
        """So many tokens have been drawn."""
        fresh = min(emitted, self.most) - self.told
        if fresh > 0:
            self.told += fresh
            self.sink.on_tokens([0] * fresh)

    def on_end(self, job: Job, finish: Finish, cause: str, now: float) -> None:
        """Its one end."""
        channel = self.channel
        if channel.deaf or self.lost:
            return
        if self.submission not in channel.open:
            channel.world.checks.fault(f"{self.submission} ends twice")
            return
        self.bring(job.emitted)
        del channel.open[self.submission]
        params: dict[str, object] | None = None
        if job.source is KvSource.PRODUCE and finish is Finish.LENGTH:
            params = {"engine": channel.member.engine_id, "submission": job.submission}
        cached = min(job.cached_tokens, job.prompt_tokens)
        self.sink.on_end(End(finish, cached, params, cause))


def engine_info(gang: Gang, name: str, max_model_len: int, *, kv_events: bool) -> EngineInfo:
    """What a simulated engine says of itself."""
    return EngineInfo(
        engine="simulated",
        model=name,
        max_model_len=max_model_len,
        block_size=gang.model.block_tokens,
        kv_blocks=gang.model.blocks,
        kv_events=KvEventSource("simulated", "simulated") if kv_events else None,
    )
