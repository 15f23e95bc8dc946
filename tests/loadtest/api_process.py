"""Starts what the load test's own process is tested with."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from loadtest.result import Result


class Api:
    """A running API."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{self._read()}/v1"

    def completions(self) -> int:
        """How many were asked for."""
        return int(self._ask("count"))

    def stall(self, seconds: float) -> None:
        """Silence from now on."""
        self._ask(f"stall {seconds}")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def paced_api(*options: str) -> Iterator[Api]:
    """One of `paced_server`."""
    command = [sys.executable, "-m", "tests.loadtest.paced_server", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Api(process)
        finally:
            process.kill()


def started(*arguments: str) -> "subprocess.Popen[str]":
    """The load test's process."""
    return subprocess.Popen(
        [sys.executable, "-m", "loadtest", *arguments], stderr=subprocess.PIPE, text=True
    )


def said(*arguments: str) -> tuple[int, str]:
    """Its exit code, and what it said."""
    with started(*arguments) as process:
        _, words = process.communicate(timeout=90)
        return process.returncode, words


def result_in(out: Path) -> Result:
    """What it wrote."""
    return msgspec.json.decode((out / "result.json").read_bytes(), type=Result)
