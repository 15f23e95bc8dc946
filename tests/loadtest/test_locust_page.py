"""Locust's own web UI on our users: starts, swarms, counts, stops; and its shapes."""

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.loadtest.api_process import Api, paced_api

pytestmark = pytest.mark.timeout(150)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answer(url: str, **form: object) -> dict[str, object]:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=20) as response:
        found: dict[str, object] = json.loads(response.read())
        return found


@contextmanager
def locust(api: Api, *arguments: str, file: str = "locustfile.py") -> Iterator[str]:
    """Locust with its web UI; its address."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "locust", "-f", f"loadtest/{file}", *arguments),
        *("--host", api.url, "--web-host", "127.0.0.1", "--web-port", str(port)),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def test_the_page_starts_users_counts_their_streams_and_stops_them() -> None:
    with paced_api("--step-s", "0.0002") as api, locust(api, "ChatUser", "AgentUser") as url:
        started = answer(f"{url}/swarm", user_count=6, spawn_rate=6, host=api.url)
        assert started["success"] is True
        until = time.monotonic() + 60
        names: set[tuple[object, object]] = set()
        wanted = {
            (kind, name)
            for kind in ("chat", "agent")
            for name in ("ttft", "first answer", "tpot thinking", "tpot answer", "e2e")
        }
        while not wanted <= names and time.monotonic() < until:
            time.sleep(0.5)
            stats = answer(f"{url}/stats/requests")
            rows = stats["stats"]
            assert isinstance(rows, list)
            names = {(row["method"], row["name"]) for row in rows}
        assert wanted <= names
        assert stats["user_count"] == 6
        assert stats["fail_ratio"] == 0
        assert answer(f"{url}/exceptions")["exceptions"] == []
        assert answer(f"{url}/stop", confirm="yes")["success"] is True
        while answer(f"{url}/stats/requests")["user_count"]:
            assert time.monotonic() < until + 30
            time.sleep(0.2)


def test_failures_are_counted_by_their_class() -> None:
    with paced_api("--key", "sk-right") as api, locust(api, "BatchUser") as url:
        answer(f"{url}/swarm", user_count=1, spawn_rate=1, host=api.url)
        until = time.monotonic() + 60
        errors: list[dict[str, object]] = []
        while not errors and time.monotonic() < until:
            time.sleep(0.5)
            found = answer(f"{url}/stats/requests")["errors"]
            assert isinstance(found, list)
            errors = found
        assert "http_401" in str(errors[0]["error"])


def test_a_schedule_is_sent_whatever_is_answered() -> None:
    with (
        paced_api("--first-s", "100") as api,
        locust(api, "--user-rate", "20", file="locust_schedule.py") as url,
    ):
        answer(f"{url}/swarm", user_count=1, spawn_rate=1, host=api.url)
        until = time.monotonic() + 60
        while api.completions() < 40:  # of which none is answered
            assert time.monotonic() < until
            time.sleep(0.2)
