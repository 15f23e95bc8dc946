"""Stands for a Grafana: as much of its HTTP API as a push uses, with what it does to a dashboard.

Of folders and dashboards: https://grafana.com/docs/grafana/latest/developers/http_api/.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override


@dataclass
class FakeGrafana:
    """What it holds, and what was asked to be changed."""

    url: str = ""
    token: str = "secret"
    folders: dict[str, str] = field(default_factory=dict)
    dashboards: dict[str, dict[str, object]] = field(default_factory=dict)
    in_folder: dict[str, str] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    state: FakeGrafana


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        if not self._allowed():
            return
        kind, _, uid = self.path.removeprefix("/api/").rpartition("/")
        if kind == "folders" and uid in self.server.state.folders:
            self._answer(200, {"uid": uid, "title": self.server.state.folders[uid]})
        elif kind == "dashboards/uid" and uid in self.server.state.dashboards:
            meta = {"folderUid": self.server.state.in_folder.get(uid, "")}
            self._answer(200, {"dashboard": self.server.state.dashboards[uid], "meta": meta})
        else:
            self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.state.writes.append(self.path)
        if self.path == "/api/folders":
            self.server.state.folders[body["uid"]] = body["title"]
            self._answer(200, body)
        elif self.path == "/api/dashboards/db":
            board = body["dashboard"]
            if body["folderUid"] not in self.server.state.folders:
                self._answer(400, {"message": "folder not found"})
                return
            before = self.server.state.dashboards.get(board["uid"], {})
            version = int(str(before.get("version", 0))) + 1
            self.server.state.dashboards[board["uid"]] = board | {"id": 7, "version": version}
            self.server.state.in_folder[board["uid"]] = body["folderUid"]
            self._answer(200, {"status": "success", "uid": board["uid"], "version": version})

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.server.state.token}":
            return True
        self._answer(401, {"message": "invalid API key"})
        return False

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def grafana() -> Iterator[FakeGrafana]:
    """A Grafana that runs until the block ends."""
    state = FakeGrafana()

    server = _Server(("127.0.0.1", 0), _Handler)
    server.state = state
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
