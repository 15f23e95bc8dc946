"""Hosts one rank's stream of KV events: ZeroMQ in, routing's index out."""

import asyncio
from collections.abc import Callable, Sequence

import zmq
import zmq.asyncio

from orchestrator.core import RankId
from orchestrator.engines.engine import KvEventSource
from orchestrator.engines.kv_events import (
    END_OF_REPLAY,
    SEQUENCE_BYTES,
    BadBatch,
    KvHashing,
    decode_batch,
    first_mismatch,
)
from orchestrator.routing import Apply, AskReplay, KvStream, Router, Step, Stored

REPLAY_S = 5.0  # how long a replay may take; a batch that is not there by then is lost
CLOSE_MS = 200  # how long `run` may take to notice that it is closed
_AT_ONCE = 16  # batches taken in one turn of the loop: others have work too


class KvSubscriber:
    """Feeds the router with what one rank publishes, until `close`.

    If the stream turns out to be of no use, the rank's blocks are from then on what we sent there.
    """

    def __init__(
        self,
        rank_id: RankId,
        address: str,
        source: KvEventSource,
        hashing: KvHashing,
        router: Router,
        on_fault: Callable[[str], None],
    ) -> None:
        """`address` is host:port of the engine, for endpoints that name no host. `on_fault` is told
        in a sentence why the stream is of no use, or what it has lost.
        """
        self.malformed = 0  # messages that were no batch
        self.ignored = 0  # events that were none of ours: see decode_batch
        self.stream = KvStream(replays=bool(source.replay_endpoint))
        self._rank_id = rank_id
        self._host = address.rpartition(":")[0]
        self._source = source
        self._hashing = hashing
        self._router = router
        self._on_fault = on_fault
        self._closed = False
        self._checked = False
        self._deaf_until = 0.0  # of the loop's clock

    def drop(self, lasts_s: float) -> None:
        """From now on what is published gets lost, for a drill; the first batch behind that shows
        that some are missing.
        """
        self._deaf_until = asyncio.get_running_loop().time() + lasts_s

    def close(self) -> None:
        """Ends `run`, soon."""
        self._closed = True

    async def run(self) -> None:
        """Subscribes, asks for the past, and follows the present. Cancellation ends it."""
        context = zmq.asyncio.Context()
        try:
            with context.socket(zmq.SUB) as live:
                live.setsockopt(zmq.RCVHWM, 0)  # held here rather than lost
                live.connect(self._endpoint(self._source.endpoint))
                live.subscribe(self._source.topic)
                await self._take(context, self.stream.start())
                await self._follow(context, live)
        except _Useless as error:
            self._give_up(str(error))
        except zmq.ZMQError as error:
            self._give_up(f"cannot subscribe to {self._source.endpoint}: {error}")
        finally:
            context.destroy(linger=0)

    async def _follow(self, context: zmq.asyncio.Context, live: zmq.asyncio.Socket) -> None:
        while not self._closed:
            if not await live.poll(CLOSE_MS):
                continue
            for _ in range(_AT_ONCE):
                try:
                    frames = await live.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                if asyncio.get_running_loop().time() >= self._deaf_until:
                    await self._message(context, frames)
            await asyncio.sleep(0)

    async def _message(self, context: zmq.asyncio.Context, frames: Sequence[bytes]) -> None:
        if len(frames) != 3:
            self.malformed += 1
            return
        _, sequence, payload = frames
        try:
            batch = decode_batch(sequence, payload, self._hashing.block_tokens)
        except BadBatch:
            self.malformed += 1
            return
        self.ignored += batch.ignored
        await self._take(context, self.stream.on_live(batch))

    async def _take(self, context: zmq.asyncio.Context, steps: Sequence[Step]) -> None:
        if self._closed:
            return
        self._check(steps)
        for asked in self._router.take(self._rank_id, steps):
            await self._replay(context, asked)

    async def _replay(self, context: zmq.asyncio.Context, asked: AskReplay) -> None:
        """Asks for what is missing. Live batches wait in the socket meanwhile."""
        with context.socket(zmq.DEALER) as replay:
            replay.setsockopt(zmq.LINGER, 0)
            replay.connect(self._endpoint(self._source.replay_endpoint))
            try:
                async with asyncio.timeout(REPLAY_S):
                    await replay.send_multipart([b"", asked.first.to_bytes(SEQUENCE_BYTES)])
                    await self._replayed(context, replay)
            except TimeoutError:
                self._on_fault(f"no replay from batch {asked.first} on within {REPLAY_S:g} s")
        await self._take(context, self.stream.on_replay_end())

    async def _replayed(self, context: zmq.asyncio.Context, replay: zmq.asyncio.Socket) -> None:
        while True:
            frames = await replay.recv_multipart()
            if len(frames) != 4:
                self.malformed += 1
                continue
            _, _, sequence, payload = frames
            if sequence == END_OF_REPLAY:
                return
            try:
                batch = decode_batch(sequence, payload, self._hashing.block_tokens)
            except BadBatch:
                self.malformed += 1
                continue
            self.ignored += batch.ignored
            await self._take(context, self.stream.on_replayed(batch))

    def _check(self, steps: Sequence[Step]) -> None:
        """Compares the first hash that can be computed here with the engine's."""
        if self._checked:
            return
        for step in steps:
            for event in step.events if isinstance(step, Apply) else ():
                if isinstance(event, Stored) and event.parent is None:
                    self._checked = True
                    if (pair := first_mismatch(self._hashing, event)) is not None:
                        raise _Useless(
                            f"its hash of a block is {pair[1]:#x}, by {self._hashing.algorithm} "
                            f"it should be {pair[0]:#x}"
                        )
                    return

    def _give_up(self, cause: str) -> None:
        self._on_fault(cause)
        self._router.without_events(self._rank_id)

    def _endpoint(self, endpoint: str) -> str:
        return endpoint.replace("*", self._host, 1)


class _Useless(Exception):
    """The stream's hashes are not what the engine said they would be."""
