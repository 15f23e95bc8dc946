"""What a server may do wrong reaches a request as its one end, and no other request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from orchestrator.core import EngineStartError, Role, TokenLogprob, token_ids
from orchestrator.engines import ChannelState, End, EngineLink, Finish, Sampling, Submit
from orchestrator.engines.http import HttpEngine
from orchestrator.engines.http.exposition import cache_config, load_of

MODELS = b'{"data":[{"id":"r1","max_model_len":4096}]}'
METRICS = b"""# HELP vllm:num_requests_running Requests.
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:cache_config_info{block_size="64",num_gpu_blocks="1024",other="x"} 1.0
"""
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def tokens(*ids: int, reason: str = "null") -> bytes:
    listed = ",".join(map(str, ids))
    event = f'data: {{"choices":[{{"token_ids":[{listed}],"finish_reason":{reason}}}]}}\n\n'
    return event.encode()


def whole(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Server:
    """Answers GETs as vLLM does and each POST with the next of `answers`."""

    def __init__(self, *answers: bytes | Answer) -> None:
        self._answers = list(answers)
        self.posts = 0
        self._serving: list[asyncio.Task[None] | None] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listens at this address until the block ends, by when its clients have gone."""
        listening = await asyncio.start_server(self, "127.0.0.1", 0)
        host, port = listening.sockets[0].getsockname()
        yield f"{host}:{port}"
        listening.close()
        await listening.wait_closed()
        await asyncio.gather(*(task for task in self._serving if task is not None))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /v1/models"):
                    writer.write(whole(MODELS))
                elif head.startswith(b"GET "):
                    writer.write(whole(METRICS))
                else:
                    length = head.lower().partition(b"content-length:")[2].split()[0]
                    await reader.readexactly(int(length))
                    self.posts += 1
                    answer = self._answers.pop(0)
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    else:
                        await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Noted:
    """A sink and a listener."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ends: asyncio.Queue[End] = asyncio.Queue()

    def on_tokens(self, _: str, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.ids += ids

    def on_end(self, _: str, end: End) -> None:
        self.ends.put_nowait(end)


@asynccontextmanager
async def engine_on(server: Server) -> AsyncIterator[tuple[HttpEngine, Noted]]:
    async with server.listening() as address:
        engine, noted = HttpEngine(address), Noted()
        await engine.start(noted)
        yield engine, noted
        await engine.stop()


async def outcome(*answers: bytes | Answer) -> tuple[list[int], End]:
    async with engine_on(Server(*answers)) as (engine, noted):
        engine.submit(Submit("a", token_ids((1, 2)), Sampling(5, stop_token_ids=(9,))))
        end = await asyncio.wait_for(noted.ends.get(), 5)
        await asyncio.sleep(0)
        assert noted.ends.empty()
        return noted.ids, end


async def test_a_stop_token_is_not_among_the_ids() -> None:
    body = chunk(tokens(5, 6)) + chunk(tokens(7, 9, reason='"stop"'))
    ids, end = await outcome(STREAM + body + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    assert ids == [5, 6, 7]
    assert end.finish is Finish.STOP


async def test_events_may_be_cut_anywhere() -> None:
    data = STREAM + chunk(tokens(5) + tokens(6, reason='"length"')[:30])
    rest = chunk(tokens(6, reason='"length"')[30:]) + b"0\r\n\r\n"

    async def dribble(writer: asyncio.StreamWriter) -> None:
        for byte in data + rest:
            writer.write(bytes((byte,)))
            await writer.drain()

    ids, end = await outcome(dribble)
    assert ids == [5, 6]
    assert end.finish is Finish.LENGTH


@pytest.mark.parametrize(
    ("answer", "finish", "cause"),
    [
        (
            whole(b'{"error":{"message":"bad\\n grammar"}}', "400 Bad"),
            Finish.REFUSED,
            "bad grammar",
        ),
        (
            STREAM + chunk(b'data: {"error":{"message":"no id","code":400}}\n\n') + b"0\r\n\r\n",
            Finish.REFUSED,
            "no id",
        ),
        (
            STREAM + chunk(b'data: {"error":{"message":"gone","code":500}}\n\n') + b"0\r\n\r\n",
            Finish.FAILED,
            "gone",
        ),
        (whole(b"gateway says no", "502 Bad"), Finish.FAILED, "502: gateway says no"),
        (whole(b"", "429 Slow"), Finish.FAILED, "429"),
        (STREAM + b"0\r\n\r\n", Finish.FAILED, "has no end"),
        (
            STREAM + chunk(b"data: {nonsense\n\n") + b"0\r\n\r\n",
            Finish.FAILED,
            "an event that is none",
        ),
        (
            STREAM + chunk(b'data: {"error":{"message":"out of memory"}}\n\n') + b"0\r\n\r\n",
            Finish.FAILED,
            "out of memory",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Finish.LOST, "no HTTP"),
        (STREAM + chunk(tokens(5, reason='"abort"')) + b"0\r\n\r\n", Finish.ABORTED, ""),
    ],
)
async def test_what_a_server_does_wrong_is_the_requests_end(
    answer: bytes, finish: Finish, cause: str
) -> None:
    _, end = await outcome(answer)
    assert end.finish is finish
    assert cause in end.cause


async def test_a_connection_that_breaks_in_mid_stream_is_lost() -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(tokens(5)))
        await writer.drain()
        writer.close()

    ids, end = await outcome(break_off)
    assert ids == [5]
    assert end.finish is Finish.LOST


async def test_a_kept_connection_that_the_server_closed_is_asked_again_on_a_new_one() -> None:
    good = STREAM + chunk(tokens(5, reason='"length"')) + b"0\r\n\r\n"

    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = Server(good, close, good)
    async with engine_on(server) as (engine, noted):
        for request_id in ("a", "b"):
            engine.submit(Submit(request_id, token_ids((1, 2)), Sampling(5)))
            end = await asyncio.wait_for(noted.ends.get(), 5)
            assert end.finish is Finish.LENGTH
    assert server.posts == 3


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineStartError, match=r"127\.0\.0\.1:9 does not answer GET /v1/models"):
        await HttpEngine("127.0.0.1:9").start(Noted())


async def test_a_link_finds_its_engine_again_and_ends_what_was_open() -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(tokens(5)))

    engines: list[HttpEngine] = []
    states: list[ChannelState] = []
    sink = Sink()
    async with (
        Server(hang).listening() as address,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
    ):

        def make() -> HttpEngine:
            engines.append(HttpEngine(address))
            return engines[-1]

        link = EngineLink(make, Role.UNIFIED, 1, lambda link: states.append(link.state))
        running = group.create_task(link.run())
        link.submit(Submit("early", token_ids((1,)), Sampling(1)), early := Sink())
        assert (await early.end.get()).finish is Finish.LOST
        while link.state is not ChannelState.OPEN:
            await asyncio.sleep(0.01)
        assert link.info is not None
        assert (link.info.block_size, link.info.kv_blocks) == (64, 1024)
        link.submit(Submit("a", token_ids((1,)), Sampling(5)), sink)
        link.submit(Submit("b", token_ids((1,)), Sampling(5)), too_many := Sink())
        assert "all in use" in (await too_many.end.get()).cause
        while not sink.ids:
            await asyncio.sleep(0.01)
        await engines[0].stop()  # as if it had failed
        assert (await sink.end.get()).finish is Finish.ABORTED
        while len(engines) < 2 or link.state is not ChannelState.OPEN:
            await asyncio.sleep(0.01)
        link.close()
        await running
    assert states == [ChannelState.OPEN, ChannelState.LOST, ChannelState.OPEN, ChannelState.LOST]


class Sink:
    """Notes one request's output."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.end: asyncio.Queue[End] = asyncio.Queue()

    def on_tokens(self, ids: list[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.ids += ids

    def on_end(self, end: End) -> None:
        self.end.put_nowait(end)


def test_load_and_cache_are_read_from_vllms_metrics() -> None:
    assert load_of(METRICS) == (3, 2, 0.25)
    assert cache_config(METRICS) == (64, 1024)
    assert cache_config(b"") == (0, 0)
    assert load_of(b"vllm:num_requests_running nonsense\n") == (0, 0, 0.0)


def test_load_is_read_from_sglangs_metrics() -> None:
    sglang = b"sglang:num_running_reqs 4.0\nsglang:num_queue_reqs 1.0\nsglang:token_usage 1.5\n"
    assert load_of(sglang) == (4, 1, 1.0)
