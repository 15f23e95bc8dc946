"""The engine process, with the fake engine: what it says, and how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.codec import Tokenizer
from orchestrator.core import Role, token_ids
from orchestrator.engines import (
    ChannelLimits,
    ChannelState,
    Finish,
    RankChannel,
    Sampling,
    Submit,
)
from orchestrator.engines.server import parse
from tests.unit.engines.channel_world import NotingSink, play, request, until

PATIENCE_S = 20
COMMAND = ["--listen", "127.0.0.1:0", "--engine-id", "e1", "--role", "decode", "--engine", "fake"]

Event = dict[str, object]


class EngineProcess:
    """One child and its JSON lines."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.engines.server", *COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def event(self) -> Event:
        assert self.child.stdout is not None
        line: Event = json.loads(self.child.stdout.readline())
        return line

    def ready(self) -> Event:
        assert self.event() == {"event": "phase", "phase": "starting"}
        ready = self.event()
        assert ready["event"] == "ready"
        return ready

    def ended(self) -> tuple[list[Event], int]:
        """The rest of its events, and its exit code."""
        out, _ = self.child.communicate(timeout=PATIENCE_S)
        return [json.loads(line) for line in out.splitlines()], self.child.returncode

    def end(self) -> None:
        self.child.kill()
        self.child.communicate(timeout=PATIENCE_S)


@pytest.fixture
def processes() -> Iterator[list[EngineProcess]]:
    started: list[EngineProcess] = []
    yield started
    for process in started:
        process.end()


@pytest.fixture
def process(request: pytest.FixtureRequest, processes: list[EngineProcess]) -> EngineProcess:
    processes.append(EngineProcess(*getattr(request, "param", ())))
    return processes[0]


def with_arguments(*arguments: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("process", [arguments], indirect=True)


STOPPED: list[Event] = [{"event": "phase", "phase": "stopping"}, {"event": "stopped"}]


@with_arguments("--metrics", "127.0.0.1:0")
def test_it_says_when_it_is_ready_serves_its_metrics_and_stops_on_sigterm(
    process: EngineProcess,
) -> None:
    ready = process.ready()
    assert (ready["engine_id"], ready["role"]) == ("e1", "decode")
    for path, start in (("metrics", b"# TYPE vllm:"), ("health", b"ok")):
        with urllib.request.urlopen(f"http://{ready['metrics']}/{path}", timeout=5) as answer:
            assert answer.read().startswith(start)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{ready['metrics']}/secrets", timeout=5)
    process.child.send_signal(signal.SIGTERM)
    assert process.ended() == (STOPPED, 0)


@with_arguments("--exit-with-stdin")
def test_it_ends_with_its_parent(process: EngineProcess) -> None:
    process.ready()
    assert process.ended() == (STOPPED, 0)  # communicate closes stdin


@with_arguments("--fake-options", '{"start_s": 60}')
def test_it_can_be_stopped_while_it_starts(process: EngineProcess) -> None:
    process.event()
    process.child.send_signal(signal.SIGTERM)
    assert process.ended() == (STOPPED, 0)


@with_arguments("--fake-options", '{"refuse_start": "no GPU is free"}')
def test_a_start_that_fails_is_told_with_cause_and_cure(process: EngineProcess) -> None:
    events, code = process.ended()
    assert code == 1
    assert events[-1]["event"] == "failed"
    assert events[-1]["cause"] == "no GPU is free"
    assert events[-1]["cure"]


def test_a_taken_port_is_told_with_cause_and_cure(processes: list[EngineProcess]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        processes.append(EngineProcess("--listen", f"127.0.0.1:{port}"))
        events, code = processes[0].ended()
    assert code == 1
    assert events[-1]["cause"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"


@with_arguments("--node-rank", "1", "--nnodes", "2")
def test_a_node_rank_above_0_serves_nothing(process: EngineProcess) -> None:
    assert process.event() == {"event": "phase", "phase": "headless"}
    process.child.send_signal(signal.SIGTERM)
    assert process.ended() == ([{"event": "stopped"}], 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--role", "both"], "argument --role: 'both' is none of prefill, decode, unified"),
        (["--listen", "here"], "argument --listen: 'here' is not HOST:PORT"),
        (["--node-rank", "2"], "--node-rank 2 is not in 0..0"),
        (["--", "--model", "x"], "the fake engine has no flags; it was given --model"),
        (
            ["--fake-options", '{"speed": 1}'],
            "argument --fake-options: Object contains unknown field `speed`",
        ),
        (["--engine", "vllm", "--fake-options", '{"seed": 1}'], "--fake-options are for --engine"),
    ],
)
def test_bad_arguments_exit_with_2_and_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        parse([*COMMAND, *arguments])
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"orchestrator.engines.server: {line}")
    assert said.count("\n") == 1


def test_what_follows_the_dashes_is_the_engines_own() -> None:
    options = parse([*COMMAND, "--engine", "vllm", "--", "--model", "x", "--role", "y"])
    assert options.flags == ("--model", "x", "--role", "y")
    assert options.role is Role.DECODE


# The engine's side beats once a second: less would be too impatient.
LIMITS = ChannelLimits(heartbeat_s=0.1, lost_after_s=1.5, connect_s=1.0, reconnect_min_s=0.01)


async def _open(group: asyncio.TaskGroup, process: EngineProcess) -> RankChannel:
    channel = RankChannel(
        str(process.ready()["address"]), "e1", gateway_id="g", limits=replace(LIMITS)
    )
    group.create_task(channel.run())
    await until(lambda: channel.state is ChannelState.OPEN)
    return channel


@with_arguments("--fake-options", '{"die_after_tokens": 5, "step_s": 0.001}')
def test_an_engine_that_dies_ends_its_requests_failed_and_its_process(
    process: EngineProcess,
) -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            channel = await _open(group, process)
            sink = NotingSink()
            channel.submit(request("a"), sink)
            assert (await sink.ended()).finish is Finish.FAILED
            assert len(sink.ids) == 5
            await until(lambda: channel.state is ChannelState.LOST)
            channel.close()

    play(scene())
    events, code = process.ended()
    assert (code, events[-1]["cause"]) == (1, "died after 5 tokens, by its script")


def test_a_scripted_model_writes_with_the_tokenizer_that_it_is_given(
    processes: list[EngineProcess], tokenizer_dir: Path, tokenizer: Tokenizer
) -> None:
    process = EngineProcess(
        "--fake-author", str(tokenizer_dir), "--fake-options", '{"step_s": 0.001}'
    )
    processes.append(process)

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            channel = await _open(group, process)
            assert channel.info is not None
            assert channel.info.grammar
            sink = NotingSink()
            asked = token_ids((0, 128803, *tokenizer.encode("SAY: 你好"), 128804))
            channel.submit(Submit("a", asked, Sampling(10, logprobs=2)), sink)
            assert (await sink.ended()).finish is Finish.STOP
            assert tokenizer.decode(sink.ids) == "你好"
            assert [len(logprob.top) for logprob in sink.logprobs] == [2] * len(sink.ids)
            channel.close()

    play(scene())


@with_arguments("--fake-author", "/nowhere")
def test_a_tokenizer_that_is_not_there_fails_the_start(process: EngineProcess) -> None:
    events, code = process.ended()
    assert code == 1
    assert "/nowhere/tokenizer.json" in str(events[-1]["cause"])


def test_sigterm_ends_open_requests_failed_so_that_another_rank_may_serve_them(
    process: EngineProcess,
) -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            channel = await _open(group, process)
            sink = NotingSink()
            channel.submit(request("a", max_tokens=10_000), sink)
            await sink.began()
            process.child.send_signal(signal.SIGTERM)
            end = await sink.ended()
            assert (end.finish, end.cause) == (Finish.FAILED, "the engine is shutting down")
            channel.close()

    play(scene())
    assert process.ended() == (STOPPED, 0)


def test_a_killed_process_is_a_loss_and_so_is_a_frozen_one_until_it_thaws(
    processes: list[EngineProcess],
) -> None:
    async def scene() -> None:
        processes.extend((EngineProcess(), EngineProcess()))
        async with asyncio.TaskGroup() as group:
            channels = [await _open(group, process) for process in processes]
            sinks = [NotingSink() for _ in channels]
            for channel, sink in zip(channels, sinks, strict=True):
                channel.submit(request("a", max_tokens=10_000), sink)
                await sink.began()
            processes[0].child.kill()
            processes[1].child.send_signal(signal.SIGSTOP)
            for sink in sinks:
                assert (await sink.ended()).finish is Finish.LOST
            processes[1].child.send_signal(signal.SIGCONT)
            await until(lambda: channels[1].state is ChannelState.OPEN)
            assert channels[0].state is ChannelState.LOST
            for channel in channels:
                channel.close()

    play(scene())
