"""The subscriber over real sockets on loopback, against a publisher like vLLM's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import zmq
import zmq.asyncio

from orchestrator.core import RankId, Role
from orchestrator.engines import KvEventSource
from orchestrator.engines.kv_events import END_OF_REPLAY, HashAlgorithm, KvHashing, block_hashes
from orchestrator.engines.kv_subscriber import KvSubscriber
from orchestrator.routing import Member, Router, StepCosts, prompt_keys, same_costs

RANK = RankId("gang/0")
HASHING = KvHashing("m", 4, HashAlgorithm.SHA256_CBOR)
PROMPTS = [tuple(range(number * 100, number * 100 + 8)) for number in range(10)]


class Publisher:
    """vLLM's ZmqEventPublisher: PUB, and a ROUTER that replays."""

    def __init__(self) -> None:
        self._context = zmq.asyncio.Context()
        self._live = self._context.socket(zmq.XPUB)
        self._replay = self._context.socket(zmq.ROUTER)
        port = self._live.bind_to_random_port("tcp://127.0.0.1")
        replay_port = self._replay.bind_to_random_port("tcp://127.0.0.1")
        self.source = KvEventSource(
            f"tcp://*:{port}",
            f"tcp://*:{replay_port}",
            hash_algorithm=HASHING.algorithm,
            hash_seed=HASHING.seed,
        )
        self.kept: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self.answered = asyncio.Event()  # the first replay, which every subscription begins with

    def store(self, number: int, *, wrong: bool = False) -> bytes:
        """The batch `number`: one prompt enters the cache."""
        prompt = PROMPTS[number]
        event = {
            "type": "BlockStored",
            "block_hashes": [hashed ^ wrong for hashed in block_hashes(HASHING, prompt)],
            "parent_block_hash": None,
            "token_ids": prompt,
            "block_size": 4,
        }
        payload = msgspec.msgpack.encode([float(number), [event], 0])
        self.kept.append((number, payload))
        return payload

    async def send(self, number: int, payload: bytes) -> None:
        await self._live.send_multipart([b"", number.to_bytes(8), payload])

    async def send_raw(self, frames: Sequence[bytes]) -> None:
        await self._live.send_multipart(frames)

    async def subscribed(self) -> None:
        assert await self._live.recv() == b"\x01"

    async def serve_replays(self) -> None:
        while True:
            client, _, first = await self._replay.recv_multipart()
            self.asked.append(int.from_bytes(first))
            for number, payload in self.kept:
                if number >= int.from_bytes(first):
                    frames = [client, b"", b"", number.to_bytes(8), payload]
                    await self._replay.send_multipart(frames)
            await self._replay.send_multipart([client, b"", b"", END_OF_REPLAY, b""])
            self.answered.set()

    def close(self) -> None:
        self._context.destroy(linger=0)


class World:
    def __init__(self, publisher: Publisher, source: KvEventSource) -> None:
        self.publisher = publisher
        self.router = Router(4, 1000, same_costs(StepCosts(0.0, 1e-3)))
        self.router.join(Member(RANK, Role.UNIFIED, 8, kv_tokens=400), kv_events=True)
        self.faults: list[str] = []
        self.subscriber = KvSubscriber(
            RANK, "127.0.0.1:1", source, HASHING, self.router, self.faults.append
        )

    def held(self, number: int) -> bool:
        keys = prompt_keys(PROMPTS[number], 4)
        return self.router.index.hits(keys).sure == {RANK: 2}

    async def until_held(self, *numbers: int) -> None:
        async with asyncio.timeout(10):
            while not all(map(self.held, numbers)):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(publisher: Publisher, source: KvEventSource | None = None) -> AsyncIterator[World]:
    made = World(publisher, source or publisher.source)
    try:
        async with asyncio.TaskGroup() as group:
            replays = group.create_task(publisher.serve_replays())
            running = group.create_task(made.subscriber.run())
            await publisher.subscribed()
            await publisher.answered.wait()
            yield made
            made.subscriber.close()
            await running
            replays.cancel()
    finally:
        publisher.close()


async def test_the_past_is_replayed_and_the_present_followed() -> None:
    publisher = Publisher()
    publisher.store(0)
    publisher.store(1)
    async with world(publisher) as running:
        await running.until_held(0, 1)
        await publisher.send(2, publisher.store(2))
        await running.until_held(2)
    assert publisher.asked == [0]
    assert running.faults == []


async def test_a_lost_batch_is_asked_for() -> None:
    publisher = Publisher()
    async with world(publisher) as running:
        await publisher.send(0, publisher.store(0))
        publisher.store(1)  # nobody hears of it
        await publisher.send(2, publisher.store(2))
        await running.until_held(0, 1, 2)
    assert publisher.asked == [0, 1]
    assert running.subscriber.stream.counts.gaps == 1


async def test_what_a_drill_has_dropped_is_missed_and_asked_for() -> None:
    publisher = Publisher()
    async with world(publisher) as running:
        await publisher.send(0, publisher.store(0))
        await running.until_held(0)
        running.subscriber.drop(0.3)
        await publisher.send(1, publisher.store(1))
        await asyncio.sleep(0.5)
        assert not running.held(1)
        await publisher.send(2, publisher.store(2))
        await running.until_held(0, 1, 2)
    assert publisher.asked == [0, 1]


async def test_what_is_malformed_is_counted_and_the_rest_goes_on() -> None:
    publisher = Publisher()
    async with world(publisher) as running:
        await publisher.send_raw([b"", b"short", b"x"])
        await publisher.send_raw([b"only one"])
        await publisher.send(0, b"\xc1")
        await publisher.send(0, publisher.store(0))
        await publisher.send(0, publisher.kept[0][1])
        await publisher.send(1, publisher.store(1))
        await running.until_held(0, 1)
    assert running.subscriber.malformed == 3
    assert running.subscriber.stream.counts.repeated == 1


async def test_a_stream_whose_hashes_are_others_is_given_up_with_the_two_values() -> None:
    publisher = Publisher()
    async with world(publisher) as running:
        await publisher.send(0, publisher.store(0, wrong=True))
        async with asyncio.timeout(10):
            while not running.faults:
                await asyncio.sleep(0.01)
    assert "it should be 0x" in running.faults[0]
    keys = prompt_keys(PROMPTS[0], 4)
    running.router.index.confirm(RANK, keys)
    assert running.held(0), "from now on what we sent there counts"


async def test_an_endpoint_that_is_none_is_a_fault_and_not_a_crash() -> None:
    made = World(Publisher(), KvEventSource("nonsense"))
    await made.subscriber.run()
    assert "nonsense" in made.faults[0]
    made.publisher.close()
