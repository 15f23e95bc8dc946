"""The simulated engines as workers of Dynamo, whose frontend asks none over HTTP.

Run by the Python that `make bench-peers` installed Dynamo for, with the options of
`tests.bench.http_engines`. Prints addresses that answer `/stats`.
"""

import array
import asyncio
import functools
import logging
from collections.abc import AsyncIterator

import uvloop
from dynamo.llm import (
    KvEventPublisher,
    ModelInput,
    ModelRuntimeConfig,
    ModelType,
    WorkerType,
    register_model,
)
from dynamo.runtime import DistributedRuntime

from tests.bench.http_engines import (
    ENCODING,
    MODEL,
    WORD,
    Engine,
    Running,
    announce,
    arguments,
    listening,
)

WORD_ID = 2004  # " word" to R1's tokenizer


class Stream:
    """Stands where a connection stands: tells how many tokens came, and whether those were all."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        self.transport = self
        self.gone = False

    def write(self, data: bytes) -> None:
        """What an engine sends."""
        self.told.put_nowait((data.count(WORD), data.endswith(b"0\r\n\r\n")))


async def generate(
    engine: Engine, request: dict[str, object], _: object = None
) -> AsyncIterator[dict[str, object]]:
    """Answers one request of the frontend's."""
    ids, stop = request["token_ids"], request["stop_conditions"]
    assert isinstance(ids, list)
    assert isinstance(stop, dict)
    text = array.array("I", ids).tobytes().decode(ENCODING)
    stream = Stream()
    wanted = stop.get("max_tokens") or 16
    engine.submit(Running(stream, text, engine.hashes(text), wanted, wanted))
    last = False
    try:
        while not last:
            tokens, last = await stream.told.get()
            yield {"token_ids": [WORD_ID] * tokens, "finish_reason": "length" if last else None}
    finally:
        stream.gone = True
        if not last:
            engine.leave(stream)


async def _serve() -> None:
    parser = arguments()
    parser.add_argument("--model-dir", required=True, help="with the tokenizer")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    serving = []
    publishers = []  # which end when nobody holds them
    engines = await listening(options)
    for engine, _, publisher in engines:
        runtime = DistributedRuntime(loop, "file", "tcp", event_plane="zmq")
        endpoint = runtime.endpoint("bench.backend.generate")
        config = ModelRuntimeConfig()
        config.total_kv_blocks = options.blocks
        config.max_num_seqs = options.slots
        config.max_num_batched_tokens = 8_192
        block_tokens = options.block_tokens
        served = endpoint.serve_endpoint(functools.partial(generate, engine))
        serving.append(asyncio.ensure_future(served))
        if publisher:
            publishers.append(
                KvEventPublisher(
                    endpoint, kv_block_size=block_tokens, zmq_endpoint=publisher, zmq_topic=""
                )
            )
        await register_model(
            ModelInput.Tokens,
            ModelType.Chat,
            endpoint,
            options.model_dir,
            MODEL,
            worker_type=WorkerType.Aggregated,
            kv_cache_block_size=block_tokens,
            runtime_config=config,
        )
    announce(engines)
    await asyncio.gather(*serving)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
