"""One engine process: `python -m orchestrator.engines.server`. Runs an engine, serves its channel.

It speaks to its parent in JSON lines on stdout, which nobody else writes to:

    {"event": "phase", "phase": "starting" | "headless" | "stopping" | what a start is at}
    {"event": "ready", "address", "metrics", "engine_id", "role", "weights_bytes", "info"}
    {"event": "stopped"}                    exit code 0, after SIGTERM or SIGINT
    {"event": "failed", "cause", "cure"}    exit code 1; arguments that make no sense exit with 2

A node rank above 0 serves no channel: it is "headless", never "ready".
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import msgspec
import uvloop
from typing_extensions import override

from orchestrator.core import EngineStartError, PortInUseError, Role, SpecError, StartError
from orchestrator.core.collection import keep_out_of_collections
from orchestrator.engines.channel.server import ChannelServer
from orchestrator.engines.channel.sockets import bound_socket, name_of, split_address
from orchestrator.engines.checkpoint_check import check_checkpoint, sizes_fault
from orchestrator.engines.engine import Engine, EngineInfo
from orchestrator.engines.fake_engine import Author, FakeEngine
from orchestrator.engines.fake_script import FakeEngineSpec
from orchestrator.engines.metrics_http import MetricsResponder
from orchestrator.fleet.doctor import Vitals
from orchestrator.spec import Source, source_of

Result = TypeVar("Result")

_ENGINE_STOP_S = 20.0
_LAST_BYTES_S = 1.0  # for gateways to take the last ends


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The command line, parsed."""

    listen: tuple[str, int]
    metrics: tuple[str, int] | None
    engine_id: str
    role: Role
    engine: str  # "fake" or "vllm"
    node_rank: int
    nodes: int
    fake: FakeEngineSpec
    fake_author: Path | None  # the folder of the tokenizer that a scripted model writes with
    token: str
    fetch: Source | None  # where the weights are, if they must be downloaded
    weights_cache: Path
    expected_sizes: dict[str, int]  # of the checkpoint's config.json
    exit_with_stdin: bool
    flags: tuple[str, ...]  # the engine's own


@dataclass(frozen=True, slots=True)
class ReadyEngine:
    """An engine that serves."""

    address: str
    info: EngineInfo


class Report:
    """Writes the events to the file descriptor that was stdout."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def phase(self, phase: str) -> None:
        """Something takes a while from now on."""
        self._write({"event": "phase", "phase": phase})

    def ready(
        self, options: ServerOptions, metrics: str, weights_bytes: int, engine: ReadyEngine
    ) -> None:
        """Gateways can connect; `weights_bytes` is 0 where there are no files of weights."""
        self._write(
            {
                "event": "ready",
                "address": engine.address,
                "metrics": metrics or None,
                "engine_id": options.engine_id,
                "role": options.role.value,
                "weights_bytes": weights_bytes,
                "info": msgspec.structs.asdict(engine.info),
            }
        )

    def failed(self, cause: str, cure: str) -> None:
        """The end, not asked for."""
        self._write({"event": "failed", "cause": cause, "cure": cure})

    def stopped(self) -> None:
        """The end, asked for."""
        self._write({"event": "stopped"})

    def _write(self, event: dict[str, object]) -> None:
        # A parent that has gone reads nothing; --exit-with-stdin is what ends us then.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, msgspec.json.encode(event) + b"\n")


def parse(argv: list[str]) -> ServerOptions:
    """The options; exits with 2 and one line on stderr if they make no sense."""
    parser = _Parser(prog="orchestrator.engines.server", allow_abbrev=False)
    parser.add_argument("--listen", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--metrics", type=_address, metavar="HOST:PORT")
    parser.add_argument("--engine-id", required=True, metavar="ID")
    parser.add_argument("--role", type=_role, required=True, metavar="|".join(Role))
    parser.add_argument("--engine", choices=("fake", "vllm"), required=True)
    parser.add_argument("--node-rank", type=int, default=0, metavar="N")
    parser.add_argument("--nnodes", type=int, default=1, metavar="N")
    parser.add_argument("--fake-options", type=_fake_spec, default=FakeEngineSpec(), metavar="JSON")
    parser.add_argument("--fake-author", type=Path, metavar="TOKENIZER")
    parser.add_argument("--fetch", type=_source, metavar="hf://OWNER/NAME@REVISION")
    parser.add_argument("--weights-cache", type=Path, default=Path(), metavar="FOLDER")
    parser.add_argument("--expect-sizes", type=_sizes, default={}, metavar="JSON")
    parser.add_argument("--token-file", type=_token, metavar="PATH")
    parser.add_argument("--exit-with-stdin", action="store_true")
    parser.add_argument("flags", nargs="*", metavar="-- FLAG")
    known = parser.parse_args(argv)
    if not 0 <= known.node_rank < known.nnodes:
        parser.error(f"--node-rank {known.node_rank} is not in 0..{known.nnodes - 1}")
    if known.engine == "fake" and known.flags:
        parser.error(f"the fake engine has no flags; it was given {known.flags[0]}")
    if known.engine != "fake" and known.fake_options != FakeEngineSpec():
        parser.error("--fake-options are for --engine fake")
    if known.engine != "fake" and known.fake_author is not None:
        parser.error("--fake-author is for --engine fake")
    return ServerOptions(
        listen=known.listen,
        metrics=known.metrics,
        engine_id=known.engine_id,
        role=known.role,
        engine=known.engine,
        node_rank=known.node_rank,
        nodes=known.nnodes,
        fake=known.fake_options,
        fake_author=known.fake_author,
        token=known.token_file or "",
        fetch=known.fetch,
        weights_cache=known.weights_cache,
        expected_sizes=known.expect_sizes,
        exit_with_stdin=known.exit_with_stdin,
        flags=tuple(known.flags),
    )


async def run(options: ServerOptions, report: Report) -> int:
    """Runs until the engine fails or somebody asks for the end; returns the exit code."""
    loop = asyncio.get_running_loop()
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    try:
        if options.exit_with_stdin:
            _watch_stdin(loop, stop)
        if options.node_rank > 0:
            report.phase("headless")
            await _headless(options, report, stop)
        else:
            report.phase("starting")
            await _serve(options, report, stop)
    except StartError as error:
        report.failed(error.cause, error.cure)
        return 1
    report.stopped()
    return 0


class _Stop:
    """Somebody asked for the end, or not yet."""

    def __init__(self) -> None:
        self.asked = False
        self._limit: asyncio.Timeout | None = None

    def ask(self) -> None:
        """Ends what `unless` waits for now and later."""
        self.asked = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def unless(self, work: Coroutine[None, None, Result]) -> Result | None:
        """The result of `work`, or None if the end was asked for first; then it was cancelled."""
        try:
            async with asyncio.timeout(None) as limit:
                self._limit = limit
                if self.asked:
                    self.ask()
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            return None
        finally:
            self._limit = None


async def _serve(options: ServerOptions, report: Report, stop: _Stop) -> None:
    """Node rank 0. Returns if it was stopped; raises StartError if the engine did not start, or
    died later.
    """
    weights_bytes = await stop.unless(_weights(options, report))
    if weights_bytes is None:
        return
    engine = _engine(options, report)
    server = ChannelServer(
        engine, options.engine_id, options.role, token=options.token, look=engine.look
    )
    sock = _bind(options.listen)  # before minutes of loading, and without accepting yet
    responder, metrics = None, ""
    if options.metrics is not None:
        responder, metrics = await _serve_metrics(options.metrics, engine, server)

    def on_ready(engine: ReadyEngine) -> None:
        report.ready(options, metrics, weights_bytes, engine)

    error = await _live(server, sock, stop, on_ready)
    report.phase("stopping")
    if responder is not None:
        responder.close()
    sock.close()
    server.fail("the engine is shutting down")
    await server.drained(_LAST_BYTES_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ENGINE_STOP_S):
            await engine.stop()
    if error is not None:
        raise error


async def _live(
    server: ChannelServer,
    sock: socket.socket,
    stop: _Stop,
    on_ready: Callable[[ReadyEngine], None],
) -> StartError | None:
    """The engine's life: why it failed, or None if it was stopped."""
    try:
        info = await stop.unless(server.start())
    except StartError as error:
        return error
    if info is None:
        return None
    await server.listen(sock)
    keep_out_of_collections()
    on_ready(ReadyEngine(server.address, info))
    cause = await stop.unless(server.watch())
    if cause is None:
        return None
    return EngineStartError(cause, "the engine's log above says more; its gang must start anew")


async def _serve_metrics(
    address: tuple[str, int], engine: Engine, server: ChannelServer
) -> tuple[asyncio.Server, str]:
    sock = _bind(address)

    def health() -> str | None:
        return engine.failure() if server.address else "the engine is starting"

    responder = await asyncio.get_running_loop().create_server(
        lambda: MetricsResponder(lambda: iter((engine.metrics(),)), health), sock=sock
    )
    return responder, name_of(sock)


async def _headless(options: ServerOptions, report: Report, stop: _Stop) -> None:
    """A node rank above 0. Returns if it was stopped; raises StartError if the engine ended."""
    if options.engine == "fake":
        await stop.unless(asyncio.Event().wait())
        return
    if await stop.unless(_weights(options, report)) is None:
        return
    try:
        from orchestrator.engines.vllm_engine import run_headless  # imports torch
    except ImportError as error:
        raise _no_vllm(error) from error
    await stop.unless(run_headless(options.flags, report.phase))
    if not stop.asked:
        raise EngineStartError("the headless engine ended", "its log above says more")


async def _weights(options: ServerOptions, report: Report) -> int:
    """The bytes of the checkpoint, which is then whole and on this node; raises EngineStartError
    if it cannot be. 0 for an engine that has none in files.
    """
    if options.engine == "fake":
        return 0
    return await asyncio.to_thread(_prepare, options, report)


def _prepare(options: ServerOptions, report: Report) -> int:
    if options.fetch is not None:
        from orchestrator.engines.hub import fetch  # imports an HTTP client

        fetch(options.fetch, options.weights_cache, report.phase)
    path = options.flags[options.flags.index("--model") + 1] if "--model" in options.flags else ""
    if "://" in path or not path or "dummy" in options.flags:
        return 0
    report.phase("checking weights")
    if fault := sizes_fault(Path(path), options.expected_sizes):
        raise EngineStartError(fault, "name the model's own checkpoint, or the model that this is")
    return check_checkpoint(Path(path))


class _Engine(Engine, Protocol):
    """One that runs in this process."""

    def look(self) -> Vitals:
        """How it and its node do."""
        ...


def _engine(options: ServerOptions, report: Report) -> _Engine:
    if options.engine == "fake":
        return FakeEngine(options.fake, options.engine_id, _author(options.fake_author))
    try:
        from orchestrator.engines.vllm_engine import VllmEngine  # imports torch
    except ImportError as error:
        raise _no_vllm(error) from error
    return VllmEngine(options.flags, report.phase)


def _author(tokenizer: Path | None) -> Author | None:
    if tokenizer is None:
        return None
    # The codec takes as long to import as all the rest here, and other engines do without it.
    from orchestrator.codec import Tokenizer
    from orchestrator.engines.scripted_model import ScriptedModel

    try:
        return ScriptedModel(Tokenizer.load(tokenizer))
    except SpecError as error:
        raise EngineStartError(error.cause, error.cure) from error


def _no_vllm(error: ImportError) -> EngineStartError:
    cure = "install r1-serve[gpu], or r1-serve[cpu] on a machine without GPUs"
    return EngineStartError(f"vLLM cannot be imported: {error}", cure)


def _bind(address: tuple[str, int]) -> socket.socket:
    try:
        return bound_socket(*address)
    except OSError as error:
        cause = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
        raise PortInUseError(cause, "stop what owns the port, or choose another") from error


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: _Stop) -> None:
    stdin = sys.stdin.fileno()

    def read() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            stop.ask()

    try:
        loop.add_reader(stdin, read)
    except OSError as error:
        raise StartError("stdin cannot be watched", "give it a pipe") from error


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    @override
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _address(text: str) -> tuple[str, int]:
    try:
        return split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(Role)}") from None


def _source(text: str) -> Source:
    try:
        return source_of(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(error.cause) from None


def _sizes(text: str) -> dict[str, int]:
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fake_spec(text: str) -> FakeEngineSpec:
    try:
        return msgspec.json.decode(text, type=FakeEngineSpec)
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _token(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None


def main() -> int:
    """The entry point. From here on whatever writes to stdout writes to stderr."""
    options = parse(sys.argv[1:])
    events = os.dup(1)
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(options, Report(events)))


if __name__ == "__main__":
    sys.exit(main())
