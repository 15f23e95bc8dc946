"""The real gateway over one fake engine whose capacity is its slots and its step, as a process.

`python -m tests.loadtest.fake_fleet --slots N --step-s S --logs DIR` prints its URL when it is
ready, and ends with its standard input; each line of that is answered with the steps that the
engine has taken since the last, and the seconds in which it had a request.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.spec import EngineKind, EngineSpec, GatewaySpec, ModelSpec, PoolSpec, Spec
from tests.gateway_stack import Rank, gateway_stack


async def main() -> None:
    """Serves until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--step-s", type=float, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    options = parser.parse_args()
    spec = Spec(
        models=(
            ModelSpec(
                "unused",
                (PoolSpec(Role.UNIFIED),),
                "DeepSeek-R1-0528",
                engine=EngineSpec(kind=EngineKind.FAKE),
            ),
        ),
        gateway=GatewaySpec(replicas=1),
    )
    pace = FakeEngineSpec(
        max_running=options.slots,
        step_s=options.step_s,
        prefill_s_per_token=0.0,
        thought_tokens=4_096,  # every answer is as long as it may be
        answer_tokens=4_096,
    )
    rank = Rank(Role.UNIFIED, "fleet", pace)
    tokenizer = Tokenizer.load(published_tokenizer())
    tokenizers = {model.name: tokenizer for model in spec.models}
    async with gateway_stack(spec, tokenizers, [rank], options.logs) as running:
        _say(running.url)
        watch = Busy(rank)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.keep())
            while await asyncio.to_thread(sys.stdin.readline):
                _say(f"{watch.steps} {watch.busy_s}")
            task.cancel()


class Busy:
    """How many steps an engine takes while it always has something to do."""

    def __init__(self, rank: Rank) -> None:
        self.steps = 0
        self.busy_s = 0.0
        self._engine = rank.engine

    async def keep(self) -> None:
        """Looks often; a span counts if there were requests at both of its ends."""
        at, steps, busy = time.monotonic(), self._engine.load().steps, False
        while True:
            await asyncio.sleep(0.05)
            now, load = time.monotonic(), self._engine.load()
            if busy and load.running > 0:
                self.steps += load.steps - steps
                self.busy_s += now - at
            at, steps, busy = now, load.steps, load.running > 0


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
