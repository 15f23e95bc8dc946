"""What a gateway's deciding code stands on: production's loop and network, or a simulator's."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.gateway.network import Network
from orchestrator.gateway.passage import Passage


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _loop_soon(action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(action)


@dataclass(frozen=True, slots=True)
class Host:
    """What the deciding code stands on: here an event loop and the network."""

    now: Callable[[], float] = _loop_time
    soon: Callable[[Callable[[], None]], None] = _loop_soon  # behind what is being done
    network: Network | None = None  # None: the real one
    passage: Callable[..., Passage] = Passage
    remembers: bool = True  # what happened to requests
