"""Whatever ends first, a keeper leaves no process and no shared memory behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.runtime import keeper

# Maps shared memory, starts a grandchild that left its session and ignores SIGTERM, ignores it too.
STUBBORN = """
import signal, subprocess, time
from multiprocessing import resource_tracker, shared_memory
signal.signal(signal.SIGTERM, signal.SIG_IGN)
memory = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(memory._name, "shared_memory")
grandchild = subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 600"])
print(memory.name, grandchild.pid, flush=True)
time.sleep(600)
"""


def keep(*command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, "--grace", "0.2", *options, "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def stubborn() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """A keeper of the stubborn command, its shared memory and its grandchild."""
    process = keep(sys.executable, "-c", STUBBORN, options=("--watch-stdin",))
    assert process.stdout is not None
    name, grandchild = process.stdout.readline().split()
    memory = Path("/dev/shm", name)
    assert memory.exists()
    yield process, memory, int(grandchild)
    process.communicate(timeout=20)
    memory.unlink(missing_ok=True)  # of a command that was killed before the keeper looked


def test_ends_all_when_its_parents_pipe_ends(
    stubborn: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, memory, grandchild = stubborn
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not memory.exists()
    assert not psutil.pid_exists(grandchild)


def test_ends_all_on_sigterm(stubborn: tuple[subprocess.Popen[str], Path, int]) -> None:
    process, memory, grandchild = stubborn
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not memory.exists()
    assert not psutil.pid_exists(grandchild)


def test_ends_the_rest_when_the_command_is_killed(
    stubborn: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, _, grandchild = stubborn
    time.sleep(0.1)
    [command, *_] = psutil.Process(process.pid).children()
    os.kill(command.pid, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert not psutil.pid_exists(grandchild)


def test_passes_the_commands_exit_code_and_output_on() -> None:
    process = keep("sh", "-c", "echo out; exit 7")
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("out\n", 7)


def test_a_command_that_does_not_exist_is_an_error() -> None:
    process = keep("/no/such/command")
    process.communicate(timeout=20)
    assert process.returncode == 1
