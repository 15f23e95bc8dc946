"""Runs a client of another interpreter, which has its own suite."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.conftest import Server

Command = Sequence[str | Path]


def run_suite(
    command: Command, server: str, slow_server: str, guarded: Server, **environment: str
) -> str:
    """What the suite says, if it ends with 0.

    It learns of the servers from its environment. A line `engine_running` of it is answered with
    the number of requests that the engines behind `guarded` run.
    """
    servers = {
        "R1_SERVE_URL": server,
        "R1_SERVE_SLOW_URL": slow_server,
        "R1_SERVE_GUARDED_URL": guarded.url,
    }
    with subprocess.Popen(
        command,
        env=os.environ | servers | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            report = _report(process, guarded)
            code = process.wait(timeout=5)
        finally:
            process.kill()
    assert code == 0, report
    return report


def _report(process: subprocess.Popen[str], guarded: Server) -> str:
    """All that the process says until its end, but for its questions about the engines."""
    assert process.stdin is not None
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if line == "engine_running\n":
            process.stdin.write(f"{guarded.engine_running()}\n")
            process.stdin.flush()
        else:
            said.append(line)
    return "".join(said)
