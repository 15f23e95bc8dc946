"""The real gateway over one fake engine whose capacity is its slots and its step, as a process.

`python -m tests.loadtest.fake_fleet --slots N --step-s S --logs DIR` prints its URL when it is
ready, and ends with its standard input; each line of that is answered with the seconds that the
engine's steps have taken so far while it was busy, in order, as a JSON list.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec
from orchestrator.engines.tiny_checkpoint import published_tokenizer
from orchestrator.gateway import settle
from orchestrator.spec import EngineKind, EngineSpec, GatewaySpec, ModelSpec, PoolSpec, Spec
from tests.gateway_stack import Rank, gateway_stack

_LOOK_S = 0.05


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
        settle()  # as a gateway's process does: a collection took half a second
        _say(running.url)
        watch = Busy(rank, options.slots)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.keep())
            while await asyncio.to_thread(sys.stdin.readline):
                _say(json.dumps(watch.steps_s))
            task.cancel()


class Busy:
    """How long an engine's steps take while half of its slots or more are taken."""

    def __init__(self, rank: Rank, slots: int) -> None:
        self.steps_s: list[float] = []
        self._engine = rank.engine
        self._half = slots // 2

    async def keep(self) -> None:
        """Looks about once a step, and shares out what passed between two looks among the steps of
        that time: a stall of the machine makes the steps long that it fell into, and no others.
        """
        at, steps, busy = time.monotonic(), self._engine.load().steps, False
        while True:
            await asyncio.sleep(_LOOK_S)
            now, load = time.monotonic(), self._engine.load()
            taken = load.steps - steps
            if taken or not busy:
                if busy and load.running >= self._half:
                    self.steps_s += [(now - at) / taken] * taken
                at, steps, busy = now, load.steps, load.running >= self._half


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
