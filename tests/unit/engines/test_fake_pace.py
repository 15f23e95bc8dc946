"""The fake engine keeps its pace whatever its host does beside it, as an engine on a GPU does."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from orchestrator.core import token_ids
from orchestrator.engines import End, FakeEngine, FakeEngineSpec, Sampling, Submit, TokenLogprob
from tests.virtual_loop import VirtualLoop

STEP_S = 0.04


class Busy:
    """Takes so long over each token, by the loop's clock, and keeps when it came."""

    def __init__(self, loop: VirtualLoop, takes_s: float) -> None:
        self.came_at: list[float] = []
        self.ended = asyncio.Event()
        self._loop = loop
        self._takes_s = takes_s

    def on_tokens(
        self, request_id: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()
    ) -> None:
        self.came_at.append(self._loop.time())
        self._loop.pass_s(self._takes_s)

    def on_end(self, request_id: str, end: End) -> None:
        self.ended.set()


def steps_of(takes_s: float) -> list[float]:
    """From each token to the next, of one request alone."""
    loop = VirtualLoop()

    async def scene() -> list[float]:
        spec = FakeEngineSpec(step_s=STEP_S, prefill_s_per_token=0.0, thought_tokens=100)
        engine, busy = FakeEngine(spec), Busy(loop, takes_s)
        await engine.start(busy)
        engine.submit(Submit("one", token_ids((1, 2, 3)), Sampling(10)))
        await busy.ended.wait()
        await engine.stop()
        return [after - before for before, after in pairwise(busy.came_at)]

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scene())


@pytest.mark.parametrize("takes_s", [0.0, 0.01, 0.039])
def test_handing_on_a_token_lengthens_no_step_that_it_fits_in(takes_s: float) -> None:
    assert steps_of(takes_s) == pytest.approx([STEP_S] * 9)


def test_a_host_that_is_slower_than_the_engine_sets_the_pace() -> None:
    assert steps_of(0.1) == pytest.approx([0.1] * 9)
