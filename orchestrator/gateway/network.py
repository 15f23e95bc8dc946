"""How a gateway reaches the ranks that the fleet lists: token channels, HTTP, streams of KV events.

`Network` is the real one; the simulator's has the same face over ranks that are arithmetic.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core import RankId, Role
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    EngineInfo,
    EngineLink,
    EngineLoad,
    RankChannel,
    Submit,
    TokenSink,
)
from orchestrator.engines.http import HttpEngine
from orchestrator.engines.kv_events import KvHashing
from orchestrator.engines.kv_subscriber import KvSubscriber
from orchestrator.handoff import Word
from orchestrator.routing import Credit, KvStream, Router

HTTP = "http://"  # begins the address of an engine behind a server of its own


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the fleet lists it. `engine_id` is new for each life of its gang."""

    rank_id: RankId
    role: Role
    address: str  # host:port of its token channel, or http://host:port of an engine's own server
    engine_id: str
    nodes: tuple[str, ...] = ()  # that its gang is on, by the fleet's own ids


class Channel(Protocol):
    """The way to one rank; see `RankChannel`."""

    @property
    def state(self) -> ChannelState:
        """Whether a submit would be sent now."""
        ...

    @property
    def info(self) -> EngineInfo | None:
        """What the engine said of itself when the channel was last opened."""
        ...

    @property
    def load(self) -> EngineLoad | None:
        """As the engine last said."""
        ...

    @property
    def others(self) -> Credit | None:
        """What other gateways have in flight there; None where nobody carries that."""
        ...

    @property
    def drain_at(self) -> float | None:
        """When what runs there is to be moved, of the host's clock; None: it does not drain."""
        ...

    def run(self) -> Coroutine[None, None, None]:
        """Connects, and connects again, until `close`."""
        ...

    def submit(self, submit: Submit, sink: TokenSink) -> None:
        """Sends a request. Never raises and never calls the sink from inside."""
        ...

    def cancel(self, request_id: str) -> None:
        """Ends a request; unknown ids are ignored."""
        ...

    def say(self, word: Word) -> None:
        """Tells the rank's other gateways."""
        ...

    def close(self) -> None:
        """Ends every open request, then the channel; for good."""
        ...


class Events(Protocol):
    """The stream of one rank's KV events into the router."""

    stream: KvStream
    malformed: int  # messages that were no batch

    def run(self) -> Coroutine[None, None, None]:
        """Subscribes and follows, until `close`."""
        ...

    def drop(self, lasts_s: float) -> None:
        """What is published from now on gets lost."""
        ...

    def close(self) -> None:
        """Ends it, soon."""
        ...


class Network:
    """The network of one gateway."""

    def __init__(self, gateway_id: str, limits: ChannelLimits) -> None:
        self._gateway_id = gateway_id
        self._limits = limits

    def channel(
        self,
        member: Member,
        on_state: Callable[[], None],
        on_word: Callable[[Word], None],
    ) -> Channel:
        """A channel to the rank that calls `on_state` after each change of its state, and when the
        rank begins to drain; `on_word` as `RankChannel` does.
        """
        if member.address.startswith(HTTP):
            server = member.address.removeprefix(HTTP)
            return EngineLink(
                lambda: HttpEngine(server),
                member.role,
                self._limits.max_requests,
                lambda _: on_state(),
            )
        return RankChannel(
            member.address,
            member.engine_id,
            gateway_id=self._gateway_id,
            limits=self._limits,
            on_state=lambda _: on_state(),
            on_word=on_word,
        )

    def events(
        self,
        member: Member,
        info: EngineInfo,
        hashing: KvHashing,
        router: Router,
        on_fault: Callable[[str], None],
    ) -> Events:
        """The events of a rank that publishes some."""
        assert info.kv_events is not None
        return KvSubscriber(
            member.rank_id, member.address, info.kv_events, hashing, router, on_fault
        )
