"""What goes wrong with a KV transfer between nodes, in the middle of it and before."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from orchestrator.core import Finish, KvParams, KvSource, token_ids
from orchestrator.engines import ChannelLimits, ChannelState, End, RankChannel, Sampling, Submit
from orchestrator.runtime.namespaces import Namespaces
from tests.layouts.layout_stack import GREEDY, LayoutStack, layout_stack
from tests.live.local_stack import Asker, Completion, end_of, stream, until

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(1_200)]

LAYOUT = "p2d1"
NODES = 3
BACK_S = 300.0
# Some 700 tokens, whose KV of 5 MB takes the slow link 20 s.
LONG = "The river passes the town, and nobody who lives there has ever seen where it begins. " * 40
SLOW_BITS_PER_S = 2_000_000
WHOLE = {"prefill": 2, "decode": 1}


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """Two prefill gangs and a decode gang, each on a node of its own."""
    folder = tmp_path_factory.mktemp("transfer")
    with layout_stack(folder, (LAYOUT,), nodes=NODES, gpus_per_node=1) as stack:
        yield stack


def node_of(rank: dict[str, object]) -> int:
    """The node of a line that says that a rank is ready."""
    return int(str(rank["address"]).partition(":")[0].rpartition(".")[2]) - 2


def ready(stack: LayoutStack, role: str) -> list[dict[str, object]]:
    """What the log says of the ranks of a role, oldest first."""
    return [line for line in stack.log("rank_ready") if f"-{role}-" in str(line["gang"])]


def answer(stack: LayoutStack, text: str) -> Completion:
    """What undisturbed engines say."""
    return stream(stack.stack.client(), text, sampling=GREEDY, model=stack.names[LAYOUT])


def in_mid_transfer(stack: LayoutStack, text: str) -> tuple[Asker, str]:
    """A request whose KV is on its way, and the prefill gang that sends it; all prefill nodes are
    slow from now on.
    """
    network = Namespaces(stack.stack.process.pid, NODES)
    for rank in ready(stack, "prefill"):
        network.slow(node_of(rank), SLOW_BITS_PER_S)
    before = len(transfers(stack))
    client = stack.stack.client(timeout_s=2 * BACK_S)
    asker = Asker(client, text, stack.names[LAYOUT], GREEDY)
    asker.start()
    until(lambda: len(transfers(stack)) > before, 60)
    time.sleep(3.0)  # of some 20 that the link takes
    assert not asker.heard
    return asker, transfers(stack)[-1]


def transfers(stack: LayoutStack) -> list[str]:
    """The prefill gangs of the requests that a decode rank was chosen for, in order."""
    prefill, found = "", []
    for line in stack.log("routing", "decisions"):
        decision = str(line.get("decision"))
        if "-prefill-" in decision:
            prefill = decision.partition("/")[0]
        elif "-decode-" in decision and prefill:
            found.append(prefill)
            prefill = ""
    return found


def hasten(stack: LayoutStack) -> None:
    """Ends the slowness."""
    network = Namespaces(stack.stack.process.pid, NODES)
    for node in {node_of(rank) for rank in ready(stack, "prefill")}:
        network.hasten(node)


def test_a_prefill_gang_that_dies_in_mid_transfer_costs_no_request(apart: LayoutStack) -> None:
    undisturbed = answer(apart, LONG)
    asker, gang = in_mid_transfer(apart, LONG)
    os.kill(apart.stack.pids("orchestrator.engines.server", gang)[-1], signal.SIGKILL)
    hasten(apart)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    until(lambda: apart.stack.ranks() == WHOLE, BACK_S)


def test_a_decode_gang_that_dies_in_mid_transfer_costs_no_request(apart: LayoutStack) -> None:
    other = f"Once more, and slowly. {LONG}"
    undisturbed = answer(apart, other)
    asker, _ = in_mid_transfer(apart, other)
    gang = str(ready(apart, "decode")[-1]["gang"])
    os.kill(apart.stack.pids("orchestrator.engines.server", gang)[-1], signal.SIGKILL)
    hasten(apart)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    until(lambda: apart.stack.ranks() == WHOLE, BACK_S)


class _Outcome:
    """Keeps what a submission came to."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.end: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def on_tokens(self, ids: list[int], logprobs: object = ()) -> None:
        self.ids += ids

    def on_end(self, end: End) -> None:
        self.end.set_result(end)


async def _submit(
    rank: dict[str, object],
    prompt: tuple[int, ...],
    source: KvSource,
    params: KvParams | None = None,
) -> tuple[list[int], End]:
    """One generation of 8 tokens on one rank, past the gateway."""
    channel = RankChannel(
        str(rank["address"]), str(rank["gang"]), gateway_id="test", limits=ChannelLimits()
    )
    running = asyncio.get_running_loop().create_task(channel.run())
    try:
        async with asyncio.timeout(60):
            while channel.state is not ChannelState.OPEN:
                await asyncio.sleep(0.1)
            outcome = _Outcome()
            tokens = 1 if source is KvSource.PRODUCE else 8
            sampling = Sampling(max_tokens=tokens, temperature=0.0, stop_token_ids=())
            request_id = f"test-{source}-{time.monotonic_ns()}"
            channel.submit(Submit(request_id, token_ids(prompt), sampling, source, params), outcome)
            return outcome.ids, await outcome.end
    finally:
        channel.close()
        await running


def test_a_wrong_transfer_reference_fails_its_request_and_not_the_engine(
    apart: LayoutStack,
) -> None:
    prefill, decode = ready(apart, "prefill")[-1], ready(apart, "decode")[-1]
    prompt = tuple(range(100, 180))

    async def attempt(**change: object) -> End:
        _, produced = await _submit(prefill, prompt, KvSource.PRODUCE)
        assert produced.kv_params is not None, produced
        params = json.loads(json.dumps(produced.kv_params)) | change
        _, end = await _submit(decode, prompt, KvSource.TRANSFER, params)
        return end

    for change, cause in (
        ({"remote_num_tokens": 48}, "holds 48 tokens"),
        ({"remote_block_ids": [[1, 2]]}, "names 2 blocks"),
        ({"remote_engine_id": "nobody", "remote_port": 9}, ""),  # an address that nobody has
    ):
        end = asyncio.run(attempt(**change))
        assert (end.finish, cause in end.cause) == (Finish.FAILED, True), end
    expected, local = asyncio.run(_submit(decode, prompt, KvSource.LOCAL))
    assert local.finish is Finish.LENGTH
    assert len(expected) == 8
    assert ready(apart, "decode")[-1] == decode, "the engine has survived all of them"
