#!/usr/bin/env python3
"""A `ray` for tests of the chart under the KubeRay operator: it runs nothing, and answers what the
operator, kubelet's probes and `helm test` ask of Ray's dashboard, of a Serve proxy and of
r1-serve's API.

The application counts as running once the nodes that joined could hold every bundle of every
deployment, so that KubeRay sees the order of events that a real cluster has. Standard library only:
it is all that the image has.
"""

import argparse
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GCS, DASHBOARD, AGENT, SERVE = 6379, 8265, 52365, 8000
BEAT_S = 0.5
DEAD_S = 3.0
MODEL = "stub"
GATEWAYS = "r1-serve/gateways"


class Head:
    """What the head knows: who has joined, and what Serve was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, tuple[dict[str, str], float]] = {}
        self.config: dict[str, Any] = {"applications": []}

    def join(self, name: str, labels: dict[str, str]) -> None:
        """A node lives."""
        with self._lock:
            self._nodes[name] = (labels, time.monotonic())

    def nodes(self) -> dict[str, dict[str, str]]:
        """Those that live, with their labels."""
        now = time.monotonic()
        with self._lock:
            return {
                name: labels
                for name, (labels, seen_at) in sorted(self._nodes.items())
                if now - seen_at < DEAD_S
            }

    def applications(self) -> dict[str, Any]:
        """In the form of Serve's REST API."""
        nodes = self.nodes()
        found = {}
        for application in self.config["applications"]:
            parts = {
                each["name"]: {
                    "status": "HEALTHY" if placed(each, nodes) else "UPDATING",
                    "message": "",
                }
                for each in application["deployments"]
            }
            running = all(part["status"] == "HEALTHY" for part in parts.values())
            found[application["name"]] = {
                "status": "RUNNING" if running else "DEPLOYING",
                "message": "",
                "deployments": parts,
            }
        return found


def placed(deployment: dict[str, Any], nodes: dict[str, dict[str, str]]) -> bool:
    """Whether the nodes could hold every bundle of a deployment."""
    [selector] = deployment.get("placement_group_bundle_label_selector", [{}])
    fit = [labels for labels in nodes.values() if selector.items() <= labels.items()]
    replicas: int = deployment.get("num_replicas", 1)
    return len(fit) >= replicas * len(deployment.get("placement_group_bundles", [{}]))


def serve(port: int, answer: Callable[[str, str, bytes], tuple[int, str]]) -> None:
    """Answers on a port for ever; `answer` takes method, path and body, gives status and text."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            status, text = answer(
                self.command, self.path.partition("?")[0], self.rfile.read(length)
            )
            body = text.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        # The image has no typing_extensions, and its Python no `override`.
        def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]
            """Nothing: probes ask every second."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def agent(_method: str, path: str, _body: bytes) -> tuple[int, str]:
    """A node's own agent."""
    return (200, "success") if path.endswith("healthz") else (404, "")


def run_head() -> None:
    """GCS, dashboard and agent."""
    head = Head()

    def dashboard(method: str, path: str, body: bytes) -> tuple[int, str]:
        if path == "/api/gcs_healthz":
            return 200, "success"
        if path != "/api/serve/applications/":
            return 404, path
        if method == "PUT":
            head.config = json.loads(body)
            print("configured", flush=True)
        return 200, json.dumps({"applications": head.applications(), "asked": head.config})

    def gcs(_method: str, path: str, body: bytes) -> tuple[int, str]:
        if path == "/join":
            asked = json.loads(body)
            head.join(asked["name"], asked["labels"])
        return 200, json.dumps({"nodes": head.nodes(), "applications": head.applications()})

    serve(GCS, gcs)
    serve(DASHBOARD, dashboard)


def ask(address: str, path: str, body: object = None) -> dict[str, Any]:
    """What the head says."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{address}{path}", data, timeout=2) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told


def run_worker(address: str, labels: dict[str, str]) -> None:
    """Joins, and is a proxy of the application."""
    state: dict[str, Any] = {"applications": {}}

    def join() -> None:
        while True:
            try:
                told = ask(address, "/join", {"name": socket.gethostname(), "labels": labels})
                state.update(told)
            except (OSError, urllib.error.URLError):
                state["applications"] = {}
            time.sleep(BEAT_S)

    def proxy(_method: str, path: str, _body: bytes) -> tuple[int, str]:
        running = [each["status"] == "RUNNING" for each in state["applications"].values()]
        if not running or not all(running):
            return 503, "the application does not run"
        match path:
            case "/models":
                return 200, json.dumps({"data": [{"id": MODEL}]})
            case "/chat/completions":
                return 200, json.dumps({"usage": {"completion_tokens": 1}})
            case "/metrics":
                return 200, "r1_stub 1\n"
            case _:
                return 200, "success"

    threading.Thread(target=join, daemon=True).start()
    if GATEWAYS in labels:  # Serve has proxies where it has replicas, and a gang's hosts need none
        serve(SERVE, proxy)


def main() -> None:
    """`ray start` runs until SIGTERM; `ray health-check` says whether a head answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["start", "health-check"])
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--address", default="")
    parser.add_argument("--labels", default="")
    asked, _ = parser.parse_known_args()
    if asked.verb == "health-check":
        ask(asked.address, "/")
        return
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    serve(AGENT, agent)
    if asked.head:
        run_head()
    else:
        pairs = (each.partition("=") for each in asked.labels.split(",") if each)
        run_worker(asked.address, {key: value for key, _, value in pairs})
    ended.wait()


if __name__ == "__main__":
    main()
