"""KV transfers between nodes: the same outputs, only what is missing, and what can go wrong."""

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.core import Finish, KvParams, KvSource, token_ids
from orchestrator.engines import ChannelLimits, ChannelState, End, RankChannel, Sampling, Submit
from orchestrator.runtime.namespaces import Namespaces
from tests.layouts.layout_stack import (
    GREEDY,
    ONE_RANK,
    QUESTIONS,
    LayoutStack,
    check_greedy,
    layout_stack,
    metric,
)
from tests.live.local_stack import Asker, Completion, end_of, stream, until

pytestmark = [pytest.mark.live, pytest.mark.vllm, pytest.mark.timeout(1_200)]

LAYOUT = "p2d1"
NODES = 4
BLOCK_TOKENS = 16  # MLA's on CPUs
PULLED: tuple[str, dict[str, str]] = ("nixl_bytes_transferred_sum", {})
HELD: tuple[str, dict[str, str]] = ("prompt_tokens_by_source_total", {"source": "local_cache_hit"})
BACK_S = 300.0
# Some 700 tokens, whose KV of 5 MB takes the slow link 20 s.
LONG = "The river passes the town, and nobody who lives there has ever seen where it begins. " * 40
SLOW_BITS_PER_S = 2_000_000
WHOLE = {"prefill": 2, "decode": 1}
LEASE_S = 30.0  # vLLM's `kv_lease_duration`: it holds blocks for so long that nobody asks for


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayoutStack]:
    """Two prefill gangs, a decode gang and a single rank, each on a node of its own."""
    folder = tmp_path_factory.mktemp("transfer")
    with layout_stack(folder, (LAYOUT, ONE_RANK), nodes=NODES, gpus_per_node=1) as stack:
        yield stack


def node_of(rank: dict[str, object]) -> int:
    """The node of a line that says that a rank is ready."""
    return int(str(rank["address"]).partition(":")[0].rpartition(".")[2]) - 2


def answer(stack: LayoutStack, text: str, layout: str = LAYOUT) -> Completion:
    """What undisturbed engines say."""
    return stream(stack.stack.client(), text, sampling=GREEDY, model=stack.names[layout])


def in_mid_transfer(stack: LayoutStack, text: str) -> tuple[Asker, str]:
    """A request whose KV is on its way, and the prefill gang that sends it; all prefill nodes are
    slow from now on.
    """
    client = stack.stack.client(timeout_s=2 * BACK_S)
    asker = Asker(client, text, stack.names[LAYOUT], GREEDY)
    gang = begin_transfer(stack, asker.start)
    assert not asker.heard
    return asker, gang


def begin_transfer(stack: LayoutStack, ask: Callable[[], None]) -> str:
    """The same, for a request that `ask` makes."""
    network = Namespaces(stack.stack.process.pid, NODES)
    for rank in stack.ready(LAYOUT, "prefill"):
        network.slow(node_of(rank), SLOW_BITS_PER_S)
    before = len(transfers(stack))
    ask()
    until(lambda: len(transfers(stack)) > before, 60)
    time.sleep(3.0)  # of some 20 that the link takes
    return transfers(stack)[-1]


def transfers(stack: LayoutStack) -> list[str]:
    """The prefill gangs of the requests that a decode rank was chosen for, in order."""
    name = stack.names[LAYOUT]
    prefill, found = "", []
    for line in stack.log("routing", "decisions"):
        decision = str(line.get("decision"))
        if decision.startswith(f"{name}-prefill-"):
            prefill = decision.partition("/")[0]
        elif decision.startswith(f"{name}-decode-") and prefill:
            found.append(prefill)
            prefill = ""
    return found


def hasten(stack: LayoutStack) -> None:
    """Ends the slowness."""
    network = Namespaces(stack.stack.process.pid, NODES)
    for node in {node_of(rank) for rank in stack.ready(LAYOUT, "prefill")}:
        network.hasten(node)


def test_two_prefill_gangs_feed_one_decode_gang(apart: LayoutStack) -> None:
    check_greedy(apart, LAYOUT)
    for _ in range(5):
        if len(apart.chosen(LAYOUT)) == 3:
            break
        apart.greedy(LAYOUT)
    assert len(apart.chosen(LAYOUT)) == 3, "both prefill gangs and the decode gang"
    assert len(apart.hosts(LAYOUT)) == 3


def test_a_decode_rank_pulls_only_the_blocks_that_it_does_not_hold(apart: LayoutStack) -> None:
    [rank] = apart.ready(LAYOUT, "decode")
    question = f"Say it in other words. {QUESTIONS[3] * 8}"
    pulled, held, outputs = [], [], []
    for _ in range(2):
        before = [metric(rank, name, **labels) for name, labels in (PULLED, HELD)]
        outputs.append(answer(apart, question))
        after = [metric(rank, name, **labels) for name, labels in (PULLED, HELD)]
        pulled.append(after[0] - before[0])
        held.append(after[1] - before[1])
    blocks = -(-outputs[0].prompt_tokens // BLOCK_TOKENS)
    print(f"{blocks} blocks: pulled {pulled} bytes, had {held} tokens")
    assert outputs[0] == outputs[1]
    assert pulled[0] > 0
    assert pulled[1] <= pulled[0] / blocks, "the last block, which is never whole"
    assert held[1] - held[0] >= (blocks - 2) * BLOCK_TOKENS


def test_a_prefill_gang_that_dies_in_mid_transfer_costs_no_request(apart: LayoutStack) -> None:
    undisturbed = answer(apart, LONG, ONE_RANK)  # a decode rank pulls no KV that it has seen
    asker, gang = in_mid_transfer(apart, LONG)
    os.kill(apart.stack.pids("orchestrator.engines.server", gang)[-1], signal.SIGKILL)
    hasten(apart)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    until(lambda: apart.stack.ranks() == WHOLE, BACK_S)


def test_a_decode_gang_that_dies_in_mid_transfer_costs_no_request(apart: LayoutStack) -> None:
    other = f"Once more, and slowly. {LONG}"
    undisturbed = answer(apart, other, ONE_RANK)
    asker, _ = in_mid_transfer(apart, other)
    gang = str(apart.ready(LAYOUT, "decode")[-1]["gang"])
    os.kill(apart.stack.pids("orchestrator.engines.server", gang)[-1], signal.SIGKILL)
    hasten(apart)
    end_of([asker], BACK_S)
    assert asker.completion == undisturbed
    until(lambda: apart.stack.ranks() == WHOLE, BACK_S)


def held(rank: dict[str, object]) -> float:
    """The fraction of a rank's blocks that a request holds, the prefix cache not counted."""
    return metric(rank, "kv_cache_usage_perc")


def expired(rank: dict[str, object]) -> float:
    """How many references of a rank's nobody has read in time."""
    return metric(rank, "nixl_num_kv_expired_reqs_total")


def test_the_blocks_of_a_client_that_left_in_mid_transfer_are_freed(apart: LayoutStack) -> None:
    """By the decode rank, which reads to the end; vLLM's lease does not run out."""
    connection = http.client.HTTPConnection("127.0.0.1", apart.stack.port, timeout=60)
    body = {
        "model": apart.names[LAYOUT],
        "messages": [{"role": "user", "content": f"Nobody waits for this. {LONG}"}],
        "stream": True,
        **GREEDY,
    }
    headers = {"content-type": "application/json", "authorization": "Bearer sk-any"}
    gang = begin_transfer(
        apart,
        lambda: connection.request("POST", "/chat/completions", json.dumps(body), headers),
    )
    [prefill] = [rank for rank in apart.ready(LAYOUT, "prefill") if rank["gang"] == gang]
    decode = apart.ready(LAYOUT, "decode")[-1]
    before = expired(prefill)
    assert held(prefill) > 0
    connection.close()
    hasten(apart)
    until(lambda: held(prefill) == 0, LEASE_S)
    until(lambda: held(decode) == 0, LEASE_S)
    assert expired(prefill) == before


def test_the_blocks_of_a_reference_that_nobody_reads_are_freed_by_its_lease(
    apart: LayoutStack,
) -> None:
    """What is left if a gateway dies between the legs."""
    prefill = apart.ready(LAYOUT, "prefill")[-1]
    before = expired(prefill)
    _, produced = asyncio.run(_submit(prefill, tuple(range(200, 280)), KvSource.PRODUCE))
    assert produced.kv_params is not None
    assert held(prefill) > 0
    until(lambda: held(prefill) == 0, 2 * LEASE_S)
    assert expired(prefill) == before + 1


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
    prefill, decode = apart.ready(LAYOUT, "prefill")[-1], apart.ready(LAYOUT, "decode")[-1]
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
    assert apart.ready(LAYOUT, "decode")[-1] == decode, "the engine has survived all of them"
