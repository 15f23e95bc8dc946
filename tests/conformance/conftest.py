"""The gateway that clients are pointed at; each kind of settings has its process, started once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import openai
import pytest

from orchestrator.gateway import key_line
from tests.conformance.server import Settings

END_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running gateway."""

    url: str
    process: subprocess.Popen[str]

    def engine_running(self) -> int:
        """How many requests the engines are working on now."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway as it is without settings: open, lenient, thinking."""
    with running(Settings(), tmp_path_factory.mktemp("server")) as server:
        yield server.url


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one whose prompts take seconds and whose keep-alives come often."""
    settings = Settings(keep_alive_s=0.2, prefill_s_per_token=0.02)
    with running(settings, tmp_path_factory.mktemp("slow")) as server:
        yield server.url


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with keys, at 10 ms for a token."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(
        f"{key_line('whole', 'sk-whole')}\n"
        f"{key_line('single', 'sk-single')}\n"
        f"{key_line('unpaid', 'sk-unpaid')}\n"
    )
    tenants = folder / "tenants.yaml"
    tenants.write_text("tenants: {single: {requests_max: 1}, unpaid: {suspended: true}}")
    settings = Settings(api={"keys_path": str(keys), "tenants_path": str(tenants)}, step_s=0.01)
    with running(settings, folder) as server:
        yield server


@contextmanager
def running(settings: Settings, logs: Path) -> Iterator[Server]:
    """A server with the settings, in a process of its own that ends as it should."""
    with started(settings, logs) as server:
        yield server
    assert server.process.returncode == 0


@contextmanager
def started(settings: Settings, logs: Path) -> Iterator[Server]:
    """The same; however it ends."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.conformance.server"),
            *("--logs", str(logs), "--settings", msgspec.json.encode(settings).decode()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, "the server did not start"
            yield Server(url, process)
        finally:
            process.stdin.close()
            process.wait(timeout=END_S)


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    """The official Python client; no retries, which would hide failures."""
    with openai.OpenAI(base_url=server, api_key="sk-test", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def beta(server: str, client: openai.OpenAI) -> openai.OpenAI:
    """The client below `/beta`."""
    return client.with_options(base_url=f"{server}/beta")


@pytest.fixture
def member(guarded: Server) -> Iterator[openai.OpenAI]:
    """A client with a key that is good."""
    with openai.OpenAI(
        base_url=guarded.url, api_key="sk-whole", max_retries=0, timeout=30
    ) as client:
        yield client
