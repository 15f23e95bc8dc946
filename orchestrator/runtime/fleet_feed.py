"""Carries Serve's list of a pool's replicas to the gateway's event loop.

Serve makes the request router of a handle itself, in the gateway's process but on a loop of its
own, pickles its module by value and offers no other way to be told of replicas. So the router and
the gateway meet here, in module state: the one place in the project that has any.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence

from orchestrator.gateway import Member

Listener = Callable[[str, Sequence[Member]], None]

_lock = threading.Lock()
_latest: dict[str, tuple[Member, ...]] = {}
_listeners: list[tuple[asyncio.AbstractEventLoop, Listener]] = []


def publish(pool: str, members: Sequence[Member]) -> None:
    """Serve's present list of a pool's ranks; from any thread."""
    with _lock:
        _latest[pool] = tuple(members)
        for loop, listener in _listeners:
            loop.call_soon_threadsafe(listener, pool, _latest[pool])


def listen(listener: Listener) -> None:
    """Calls the listener on the running loop with every list, the latest ones first."""
    loop = asyncio.get_running_loop()
    with _lock:
        _listeners.append((loop, listener))
        for pool, members in _latest.items():
            loop.call_soon(listener, pool, members)
