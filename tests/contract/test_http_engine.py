"""The adapter for engines behind HTTP keeps the contract of engines."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import uvicorn
import uvloop

from orchestrator.engines import FakeEngine, FakeEngineSpec
from orchestrator.engines.channel.sockets import bound_socket, name_of
from orchestrator.engines.http import FakeServer, HttpEngine
from tests.contract.engine_contract import EngineContract, PrefixContract, Rig

QUICK = FakeEngineSpec(
    step_s=0.001, prefill_s_per_token=0, max_model_len=1024, block_size=16, max_running=16
)


@contextmanager
def _served(runner: asyncio.Runner, engine: FakeEngine) -> Iterator[str]:
    """The engine behind a real HTTP server on the runner's loop."""
    sock = bound_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(FakeServer(engine).app(), log_config=None))

    async def start() -> asyncio.Task[None]:
        serving = asyncio.get_running_loop().create_task(server.serve([sock]))
        while not server.started:
            await asyncio.sleep(0.005)
        return serving

    serving = runner.run(start())
    yield name_of(sock)
    server.should_exit = True

    async def end() -> None:
        await serving

    runner.run(end())


class TestHttpEngine(PrefixContract, EngineContract):
    """The shared suite, over HTTP."""

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        spec = msgspec.structs.replace(QUICK, prefix_blocks=256)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rig = Rig(runner, patience_s=5)
            producer, consumer = FakeEngine(spec, "producer"), FakeEngine(spec, "consumer")
            with _served(runner, producer) as first, _served(runner, consumer) as second:
                engine, decoder = HttpEngine(first), HttpEngine(second)
                rig.engine, rig.decoder = engine, decoder
                rig.info = runner.run(rig.start(engine))
                runner.run(rig.start(decoder))
                watching = runner.get_loop().create_task(engine.watch())
                yield rig
                runner.run(engine.stop())
                runner.run(decoder.stop())
                runner.run(asyncio.wait_for(watching, 5))
