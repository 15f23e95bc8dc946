"""What the fake engine publishes of its prefix memory, as vLLM's ZmqEventPublisher does."""

import asyncio
from collections import deque
from datetime import UTC, datetime

import msgspec
import zmq
import zmq.asyncio

from orchestrator.core import TokenIds
from orchestrator.engines.engine import KvEventSource
from orchestrator.engines.kv_events import (
    DEFAULT_SEED,
    END_OF_REPLAY,
    SEQUENCE_BYTES,
    HashAlgorithm,
    KvHashing,
    block_hashes,
)
from orchestrator.fleet.doctor import SilentFault

_KEPT = 10_000  # batches that can be asked for again; vllm 0.32's buffer_steps
_OTHER_SEED = "another seed"


class FakeKvEvents:
    """PUB, and a ROUTER that replays; on the running loop."""

    def __init__(self, block_size: int, host: str, faults: frozenset[SilentFault]) -> None:
        self._block_size = block_size
        self._faults = faults
        seed = _OTHER_SEED if SilentFault.OTHER_HASHES in faults else DEFAULT_SEED
        self._hashing = KvHashing("", block_size, HashAlgorithm.SHA256_CBOR, seed)
        self._context = zmq.asyncio.Context()
        self._live = zmq.Context(self._context).socket(zmq.PUB)
        self._replay = self._context.socket(zmq.ROUTER)
        port = self._live.bind_to_random_port(f"tcp://{host}")
        replay_port = self._replay.bind_to_random_port(f"tcp://{host}")
        self.source = KvEventSource(
            f"tcp://*:{port}",
            f"tcp://*:{replay_port}",
            hash_algorithm=HashAlgorithm.SHA256_CBOR,
            hash_seed=DEFAULT_SEED,
        )
        self._batches = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._answering = asyncio.get_running_loop().create_task(self._answer())

    def close(self) -> None:
        """Publishes nothing more."""
        self._answering.cancel()
        self._live.close(linger=0)
        self._context.destroy(linger=0)

    def cleared(self) -> None:
        """All blocks are forgotten."""
        self._publish({"type": "AllBlocksCleared"})

    def stored(self, salt: str, prompt_ids: TokenIds, first: int) -> None:
        """The full blocks of a prompt from the `first` on are remembered; nothing if none is."""
        size = self._block_size
        end = len(prompt_ids) // size
        if first >= end:
            return
        hashes = block_hashes(self._hashing, prompt_ids[: end * size], salt)
        keys: list[list[str] | None] = [None] * (end - first)
        if salt and not first:
            keys[0] = [salt]
        self._publish(
            {
                "type": "BlockStored",
                "block_hashes": hashes[first:],
                "parent_block_hash": hashes[first - 1] if first else None,
                "token_ids": prompt_ids[first * size : end * size].tolist(),
                "block_size": size,
                "medium": "GPU",
                "extra_keys": keys,
            }
        )

    def _publish(self, event: dict[str, object]) -> None:
        sequence, self._batches = self._batches, self._batches + 1
        if SilentFault.NO_KV_EVENTS in self._faults:
            return
        if SilentFault.LOSES_KV_EVENTS in self._faults and sequence % 2:
            return
        payload = msgspec.msgpack.encode([datetime.now(UTC).timestamp(), [event], 0])
        self._kept.append((sequence, payload))
        self._live.send_multipart([b"", sequence.to_bytes(SEQUENCE_BYTES), payload], zmq.NOBLOCK)

    async def _answer(self) -> None:
        while True:
            who, _, first = await self._replay.recv_multipart()
            for sequence, payload in list(self._kept):
                if sequence >= int.from_bytes(first):
                    frames = [who, b"", b"", sequence.to_bytes(SEQUENCE_BYTES), payload]
                    await self._replay.send_multipart(frames)
            await self._replay.send_multipart([who, b"", b"", END_OF_REPLAY, b""])
