"""`python -m loadtest` as it is used: wrong input before any load, Ctrl-C, workers, whose fault."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtest.result import Bottleneck, Latency
from tests.loadtest.api_process import Api, paced_api, result_in, said, started

pytestmark = pytest.mark.timeout(150)
SMALL = ("--workload", "input=200,output=20", "--window-s", "4")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with paced_api() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Api]:
    with paced_api("--key", "sk-right") as running:
        yield running


def test_wrong_input_is_one_message_before_any_load(guarded: Api, tmp_path: Path) -> None:
    broken = tmp_path / "trace.jsonl"
    line = '{"timestamp": %d, "input_length": 10, "output_length": 2}\n'
    broken.write_text("".join(line % (1_000 * at) for at in range(5)) + "{oops\n")
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    wrong.write_text("sk-wrong\n")
    right.write_text("sk-right\n")
    here = ("--url", guarded.url)
    cases = [
        (("--url", "http://127.0.0.1:9/v1"), "cannot be reached: Connection refused", 1),
        (("--url", "http://no-such-host.invalid/v1"), "has no address", 2),
        ((*here, "--key-file", str(wrong)), "answers 401 to the API key: Authentication", 2),
        ((*here, "--key-file", str(right), "--model", "gpt-9"), "does not serve gpt-9", 2),
        ((*here, "--trace", str(broken)), "trace.jsonl, line 6", 2),
        ((*here, "--key-env", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE: it is not set", 2),
    ]
    for arguments, message, code in cases:
        found, words = said("run", *arguments, "--rate", "5", "--out", str(tmp_path / "out"))
        assert (found, message in words) == (code, True), words
        assert words.count("loadtest:") == 1
        assert words.count("do:") == 1
        assert "Traceback" not in words
    assert guarded.completions() == 0
    assert not (tmp_path / "out" / "result.json").exists()


def test_the_command_of_r1_serve_writes_a_result_and_no_key(guarded: Api, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "orchestrator.cli", "bench", "run", "--url", guarded.url),
        *("--slo", "ttft=5s,itl=500ms", "--key-env", "KEY", "--rate", "8", "--duration-s", "4"),
        *(*SMALL, "--out", str(tmp_path)),
    ]
    environment = os.environ | {"KEY": "sk-right"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = result_in(tmp_path)
    (window,) = result.windows
    assert window.ended == window.due > 8, done.stderr
    assert (result.slo.ttft_s, result.slo.itl_s) == (5.0, 0.5)
    assert "sk-right" not in (tmp_path / "result.json").read_text()
    # The template's five tokens were found out beforehand, so that prompts are as long as asked.
    assert window.tokens.prompt == window.tokens.asked_prompt == 200 * window.due
    assert window.tokens.thinking == window.tokens.answer == 10 * window.due


def test_workers_share_a_schedule_and_give_one_result(api: Api, tmp_path: Path) -> None:
    before = api.completions()
    arguments = ("--url", api.url, "--rate", "15", "--duration-s", "8", *SMALL)
    code, words = said("run", *arguments, "--workers", "2", "--out", str(tmp_path))
    assert code == 0, words
    result = result_in(tmp_path)
    assert result.workers == 2
    assert [window.offered_per_s for window in result.windows] == [15.0, 15.0]
    for window in result.windows:
        assert window.due == window.ended == sum(each.due for each in window.slices)
        assert 30 < window.due < 90
    # All that were sent, in windows or behind them, once each.
    assert api.completions() - before >= sum(window.due for window in result.windows)
    alone = tmp_path / "alone"
    assert said("run", *arguments, "--out", str(alone))[0] == 0
    dues = [[each.due for each in window.slices] for window in result_in(alone).windows]
    assert dues == [[each.due for each in window.slices] for window in result.windows]


def test_ctrl_c_writes_what_was_measured(api: Api, tmp_path: Path) -> None:
    arguments = ("--url", api.url, "--rate", "10", "--duration-s", "600", "--window-s", "3")
    with started("run", *arguments, *SMALL[:2], "--out", str(tmp_path)) as process:
        before = api.completions()
        until = time.monotonic() + 60
        while api.completions() < before + 60 and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
    assert process.returncode == 130, words
    windows = result_in(tmp_path).windows
    assert sum(window.ended for window in windows) > 20
    assert all(window.due == window.ended + sum(window.errors.values()) for window in windows)


def bursts(process: "subprocess.Popen[str]", stopped_s: float, running_s: float) -> None:
    """Stops and continues a process until it ends."""
    while process.poll() is None:
        try:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(stopped_s)
            os.kill(process.pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        time.sleep(running_s)


def test_a_throttled_generator_is_recognised(api: Api, tmp_path: Path) -> None:
    arguments = ("--url", api.url, "--rate", "10", "--duration-s", "8", *SMALL)
    bounds = ("--ttft-s", "2", "--itl-s", "1")
    with started("run", *arguments, *bounds, "--out", str(tmp_path)) as process:
        until = time.monotonic() + 60
        before = api.completions()
        while api.completions() < before + 3 and time.monotonic() < until:
            time.sleep(0.05)
        thread = threading.Thread(target=bursts, args=(process, 0.4, 0.4))
        thread.start()
        process.wait(60)
        thread.join()
    windows = result_in(tmp_path).windows
    assert [window.bottleneck for window in windows] == [Bottleneck.GENERATOR] * 2


def test_a_stalled_server_is_seen_and_is_not_the_generators_fault(api: Api, tmp_path: Path) -> None:
    # Bounds so wide that a busy machine's own delays of the generator are nothing beside them.
    arguments = ("--url", api.url, "--rate", "10", "--duration-s", "10", "--window-s", "10")
    bounds = ("--ttft-s", "20", "--itl-s", "10")
    with started("run", *arguments, *SMALL[:2], *bounds, "--out", str(tmp_path)) as process:
        until = time.monotonic() + 60
        before = api.completions()
        while api.completions() < before + 30 and time.monotonic() < until:
            time.sleep(0.05)
        api.stall(4.0)
        process.wait(60)
    (window,) = result_in(tmp_path).windows
    ttft = window.latencies[Latency.TTFT].histogram()
    assert ttft.most > 3.5
    assert ttft.quantile(0.8) > 1.0  # four of ten seconds: a tenth of all for each second waited
    assert window.bottleneck is Bottleneck.NONE


def test_processes_of_workers_end_with_the_run(api: Api, tmp_path: Path) -> None:
    arguments = ("--url", api.url, "--rate", "5", "--duration-s", "2", *SMALL)
    with started("run", *arguments, "--workers", "2", "--out", str(tmp_path)) as process:
        children: set[psutil.Process] = set()
        while process.poll() is None:
            try:
                children |= set(psutil.Process(process.pid).children(recursive=True))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
    assert len(children) == 2
    assert not any(child.is_running() for child in children)
