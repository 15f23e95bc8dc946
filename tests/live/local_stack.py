"""Starts `r1-serve up` as a user would, and looks at it from outside."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from typing_extensions import override

from orchestrator.core import StartError
from orchestrator.runtime import keeper
from orchestrator.runtime.namespaces import Namespaces
from orchestrator.runtime.ports import PortClaims

MODEL = "deepseek-reasoner"
START_S = 300.0
END_S = 60.0


@dataclass(frozen=True)
class Completion:
    """One streamed completion, put together."""

    reasoning: str
    answer: str
    finish: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class LocalStack:
    """A running `r1-serve up`."""

    port: int
    process: subprocess.Popen[bytes]
    log_dir: Path
    said: str  # what the command printed until it was ready

    @property
    def url(self) -> str:
        """The API."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, timeout_s: float = 200.0) -> openai.OpenAI:
        """The official client, pointed here; without retries, which would hide failures."""
        return openai.OpenAI(base_url=self.url, api_key="sk-any", max_retries=0, timeout=timeout_s)

    def ranks(self) -> dict[str, int]:
        """The ranks that the gateway asked can reach, by role; empty if none answers.

        Of the first model, where there are several.
        """
        try:
            models = httpx.get(f"{self.url}/health", timeout=5).json()["ranks"]
            ranks: dict[str, int] = next(iter(models.values()))
        except (httpx.HTTPError, ValueError):
            return {}
        return ranks

    def pids(self, *words: str, without: str = "\n") -> list[int]:
        """This stack's processes whose command line or title has all the words, and not the one it
        must be without, oldest first.
        """
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words) and without not in line:
                found.append((child.create_time(), child.pid))
        return [pid for _, pid in sorted(found)]

    def engine_pids(self, role: str, node: int = 0) -> list[int]:
        """The engine servers of one role's gangs on their n-th node, without their keepers."""
        words = ("orchestrator.engines.server", f"--role {role}", f"--node-rank {node}")
        return self.pids(*words, without="keeper.py")


def command(*arguments: str) -> list[str]:
    """The command line of `r1-serve` in this interpreter's environment."""
    return [sys.executable, "-m", "orchestrator.cli", *arguments]


@contextmanager
def local_stack(tmp_path: Path, *arguments: str, start_s: float = START_S) -> Iterator[LocalStack]:
    """Runs `r1-serve up` until the block ends; then nothing of it may be left.

    It must be ready within `start_s`.
    """
    ports = PortClaims("127.0.0.1")
    (port,) = ports.take(1)
    log_dir = tmp_path / "logs"
    before = left_behind()
    output = tmp_path / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command("up", "--port", str(port), "--log-dir", str(log_dir), *arguments),
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    children: list[int] = []
    try:
        _until_ready(process, output, log_dir, start_s)
        children += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        yield LocalStack(port, process, log_dir, output.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=END_S)
        ports.release()
        print(output.read_text())
    assert process.returncode == 0
    assert [pid for pid in children if _lives(pid)] == [], "processes were left behind"
    assert left_behind() - before == set(), "shared memory or folders were left behind"


def left_behind() -> set[str]:
    """Folders, namespaces and links of r1-serve's, and shared memory that no living process has
    mapped.
    """
    named = ("/tmp/r1-*", "/run/netns/r1-*", "/sys/class/net/r1-*")
    folders = {path for pattern in named for path in glob(pattern)}
    mapped = {inode for pid in psutil.pids() for inode in keeper.shared_memory(pid)}
    return folders | {e.path for e in os.scandir("/dev/shm") if e.inode() not in mapped}


def stream(
    client: openai.OpenAI,
    question: str,
    on_chunk: list[str] | None = None,
    sampling: Mapping[str, float] | None = None,
    model: str = MODEL,
) -> Completion:
    """One streamed completion; its pieces are also put into `on_chunk` as they come."""
    more = dict(sampling or {})
    reasoning, answer, finish, usage = "", "", "", None
    chunks = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True, **more
    )  # type: ignore[call-overload]
    for chunk in chunks:
        delta = chunk.choices[0].delta
        piece = getattr(delta, "reasoning_content", None) or ""
        reasoning += piece
        answer += delta.content or ""
        if on_chunk is not None:
            on_chunk.append(piece or delta.content or "")
        if chunk.choices[0].finish_reason:
            assert not finish, "two ends"
            finish = chunk.choices[0].finish_reason
            usage = chunk.usage
    assert usage is not None
    return Completion(reasoning, answer, finish, usage.prompt_tokens, usage.completion_tokens)


class Asker(threading.Thread):
    """Asks one question and keeps what became of it."""

    def __init__(
        self,
        client: openai.OpenAI,
        question: str,
        model: str = MODEL,
        sampling: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self._client = client
        self._question = question
        self._model = model
        self._sampling = sampling
        self.heard: list[str] = []
        self.completion: Completion | None = None
        self.error: openai.OpenAIError | httpx.HTTPError | None = None

    @override
    def run(self) -> None:
        try:
            self.completion = stream(
                self._client, self._question, self.heard, self._sampling, self._model
            )
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.error = error


def end_of(askers: list[Asker], limit_s: float = 200.0) -> None:
    """Waits for all; none may hang."""
    for asker in askers:
        asker.join(timeout=limit_s)
        assert not asker.is_alive(), "a request hangs"
        assert (asker.completion is None) != (asker.error is None), "exactly one end"


def until(condition: Callable[[], bool], limit_s: float) -> None:
    """Returns when the condition holds; raises TimeoutError after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)


def printed_seconds(said: str) -> float:
    """The time to the first streamed token that the command printed."""
    found = re.search(r"first streamed token (\d+) s", said)
    assert found is not None, said
    return float(found[1])


def printed_gib(said: str) -> float:
    """The memory that the command printed."""
    found = re.search(r"hold ([\d.]+) GiB", said)
    assert found is not None, said
    return float(found[1])


def _until_ready(
    process: subprocess.Popen[bytes], output: Path, log_dir: Path, start_s: float
) -> None:
    deadline = time.monotonic() + start_s
    while "Ctrl-C ends it" not in (said := output.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"up did not start: {said}{_logs(log_dir)}")
        time.sleep(0.2)


def _logs(log_dir: Path) -> str:
    """The ends of all logs, for a failure's report."""
    files = sorted(path for path in log_dir.glob("*") if path.is_file())
    ends = [f"\n== {path.name}\n{path.read_text()[-3000:]}" for path in files]
    return "".join(ends)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def need_namespaces() -> None:
    """Skips the test, saying why, where simulated nodes cannot have addresses of their own."""
    nodes = Namespaces(os.getpid(), 1)
    try:
        nodes.make()
    except StartError as error:
        pytest.skip(str(error))
    finally:
        nodes.remove()
