"""Prints the CPU time that the token channel takes per token, engine listener to gateway sink.

`python -m tests.bench.channel_cost`: two processes over loopback, uvloop, one token per request and
step. "engine" and "gateway" are the processes' own CPU times (user and system), without start-up.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import uvloop

from orchestrator.core import Role, TokenLogprob, token_ids
from orchestrator.engines import (
    ChannelServer,
    ChannelState,
    End,
    EngineInfo,
    EngineLoad,
    Finish,
    Listener,
    RankChannel,
    Sampling,
    Submit,
)


class Pump:
    """An engine whose step costs nothing: what is measured is the channel."""

    def __init__(self, steps: int, batch: int) -> None:
        self._steps_left = steps
        self._batch = batch
        self._open: list[str] = []
        self._listener: Listener | None = None
        self.began_s = 0.0

    async def start(self, listener: Listener) -> EngineInfo:
        self._listener = listener
        return EngineInfo("pump", "none", 1 << 20, 64, 1)

    def submit(self, submit: Submit) -> None:
        self._open.append(submit.request_id)
        if len(self._open) == self._batch:
            self.began_s = time.process_time()
            self._step()

    def _step(self) -> None:
        assert self._listener is not None
        on_tokens = self._listener.on_tokens
        for request_id in self._open:
            on_tokens(request_id, [self._steps_left])
        self._steps_left -= 1
        loop = asyncio.get_running_loop()
        if self._steps_left:
            loop.call_later(0.0005, self._step)  # as a step would, it leaves the loop idle
            return
        for request_id in self._open:
            self._listener.on_end(request_id, End(Finish.LENGTH))
        self._open.clear()

    def abort(self, request_id: str) -> None: ...

    def load(self) -> EngineLoad:
        return EngineLoad(len(self._open), 0, 0.0, 0)

    def failure(self) -> str | None:
        return "done" if self._steps_left == 0 and not self._open else None

    def metrics(self) -> bytes:
        return b""

    async def stop(self) -> None: ...


class Count:
    """The cheapest sink there is."""

    tokens = 0

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.tokens += len(ids)

    def on_end(self, end: End) -> None:
        assert end.finish is Finish.LENGTH, end
        self._on_done()


async def _engine(steps: int, batch: int) -> None:
    pump = Pump(steps, batch)
    server = ChannelServer(pump, "pump", Role.UNIFIED)
    await server.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve("127.0.0.1", 0))
        while not server.address:
            await asyncio.sleep(0.01)
        sys.stdout.write(server.address + "\n")
        sys.stdout.flush()
    spent_s = time.process_time() - pump.began_s
    await server.drained(1)
    sys.stdout.write(f"{spent_s}\n")


async def _gateway(address: str, steps: int, batch: int) -> float:
    left = batch
    done = asyncio.Event()

    def on_done() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    opened = asyncio.Event()

    def on_state(channel: RankChannel) -> None:
        if channel.state is ChannelState.OPEN:
            opened.set()

    channel = RankChannel(address, "pump", gateway_id="bench", on_state=on_state)
    async with asyncio.TaskGroup() as group:
        group.create_task(channel.run())
        await opened.wait()
        sinks = [Count(on_done) for _ in range(batch)]
        for number, sink in enumerate(sinks):
            channel.submit(Submit(str(number), token_ids((1, 2, 3)), Sampling(steps)), sink)
        began_s = time.process_time()
        await done.wait()
        spent_s = time.process_time() - began_s
        assert sum(sink.tokens for sink in sinks) == steps * batch
        channel.close()
    return spent_s


def main() -> None:
    """One line of JSON per batch size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--engine", nargs=2, type=int)
    options = parser.parse_args()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    if options.engine:
        with runner:
            runner.run(_engine(*options.engine))
        return
    with runner:
        for batch in (1, 8, 32, 128, 512):
            steps = min(options.tokens // batch, 4000)
            command = [sys.executable, "-m", "tests.bench.channel_cost", "--engine"]
            with subprocess.Popen(
                [*command, str(steps), str(batch)], stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                address = process.stdout.readline().strip()
                gateway_s = runner.run(_gateway(address, steps, batch))
                engine_s = float(process.stdout.readline())
            tokens = steps * batch
            cost = {
                "batch": batch,
                "tokens": tokens,
                "engine_us_per_token": round(1e6 * engine_s / tokens, 3),
                "gateway_us_per_token": round(1e6 * gateway_s / tokens, 3),
            }
            sys.stdout.write(json.dumps(cost) + "\n")


if __name__ == "__main__":
    main()
