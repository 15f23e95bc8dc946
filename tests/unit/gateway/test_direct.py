"""The way past ASGI: order, slow clients, and faults that stay where they are."""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import openai
from typing_extensions import override

from orchestrator.codec import Tokenizer
from orchestrator.core import Role
from orchestrator.engines import FakeEngineSpec, FakeScript
from orchestrator.gateway.direct import direct_body
from orchestrator.spec import GatewaySpec, Spec
from tests.gateway_stack import GatewayStack, Rank, gateway_stack, until
from tests.scripted_gateway import R1_ALONE

LONG = 4_000  # tokens, whose stream is far larger than all buffers together
WORDS = tuple(range(1_000, 1_000 + 97))
SMALL_BUFFER = 4_096


def spec_of(**gateway: float) -> Spec:
    return Spec(models=R1_ALONE, gateway=replace(GatewaySpec(), **gateway))  # type: ignore[arg-type]


def rank(answer: int, step_s: float = 0.0) -> Rank:
    script = FakeScript(answer_ids=(WORDS * (answer // len(WORDS) + 1))[:answer])
    return Rank(Role.UNIFIED, "u", FakeEngineSpec(script=script, step_s=step_s))


def tokenizers(tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    return {R1_ALONE[0].name: tokenizer}


def request_of(max_tokens: int) -> bytes:
    messages = [{"role": "user", "content": "Count."}]
    body = json.dumps(
        {
            "model": "deepseek-reasoner",
            "messages": messages,
            "stream": True,
            "max_tokens": max_tokens,
        }
    ).encode()
    return b"POST /chat/completions HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def connected(running: GatewayStack, request: bytes) -> socket.socket:
    """A client that has asked and reads nothing by itself."""
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    await loop.sock_sendall(client, request)
    return client


async def test_every_token_arrives_in_order_however_slowly_a_client_reads(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with gateway_stack(
        spec_of(),
        tokenizers(tokenizer),
        [rank(LONG)],
        tmp_path,
        send_buffer_bytes=SMALL_BUFFER,
    ) as running:
        client = await connected(running, request_of(LONG))
        received = b""
        with client:
            while not received.endswith(b"0\r\n\r\n"):
                received += await asyncio.get_running_loop().sock_recv(client, 30_000)
                await asyncio.sleep(0.0005)
    events = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    text = "".join(delta.get("reasoning_content") or delta.get("content") or "" for delta in deltas)
    assert text == tokenizer.decode((WORDS * LONG)[:LONG])


async def test_a_client_that_reads_nothing_is_cut_and_holds_up_nobody(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    async with gateway_stack(
        spec_of(client_stall_s=0.5),
        tokenizers(tokenizer),
        [rank(LONG, step_s=0.0005)],
        tmp_path,
        send_buffer_bytes=SMALL_BUFFER,
    ) as running:
        with await connected(running, request_of(LONG)) as client:
            engine = running.ranks["u"].engine
            await until(lambda: engine.load().running == 1)
            answer = await running.ask("Hi", max_tokens=50)
            assert answer[2] == "length"
            await until(lambda: b'outcome="stalled"' in running.models.metrics.exposition())
            await until(lambda: engine.load().running == 0)
            assert not (await read_to_end(client)).endswith(b"0\r\n\r\n")


async def read_to_end(client: socket.socket) -> bytes:
    """What the system still had for the client when its connection was cut."""
    received, part = b"", b"."
    while part:
        part = await asyncio.get_running_loop().sock_recv(client, 1 << 20)
        received += part
    return received


class Poisoned(Tokenizer):
    """Breaks on one id, as a fault of ours would."""

    poison = WORDS[-1]

    @override
    def to_bytes(self, ids: Sequence[int]) -> bytes:
        if self.poison in ids:
            raise RuntimeError("poison")
        return super().to_bytes(ids)


async def test_a_fault_in_one_stream_breaks_that_stream_only(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    ranks = [rank(len(WORDS), step_s=0.002)]
    async with gateway_stack(
        spec_of(), tokenizers(Poisoned.load(tokenizer_dir)), ranks, tmp_path
    ) as running:
        async with asyncio.TaskGroup() as group:
            poisoned = group.create_task(broken(running))
            sound = group.create_task(running.ask("Hi", max_tokens=len(WORDS) - 1))
        assert poisoned.result()
        assert sound.result()[2] == "length"
        assert running.models.ranks() == {R1_ALONE[0].name: {"unified": 1}}


async def broken(running: GatewayStack) -> bool:
    try:
        await running.ask("Hi")
    except (httpx.HTTPError, openai.APIError):
        return True
    return False


def test_a_server_that_offers_no_direct_way_is_none() -> None:
    assert direct_body({"type": "http"}) is None
    assert direct_body({"type": "http", "extensions": {}}) is None
