"""Downloads from a hub: whole, once, checked, and resumed where they broke off."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typing_extensions import override

from orchestrator.core import EngineStartError
from orchestrator.engines.hub import fetch
from orchestrator.spec import Source, SourceKind

REPO = "deepseek-ai/Tiny"
SOURCE = Source(SourceKind.HUB, REPO)
SHARD = "model-00001-of-00001.safetensors"
COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """A hub with one repository, that can break off in the middle of a shard."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {
            "config.json": b'{"model_type": "deepseek_v3"}',
            "tokenizer.json": b"{}",
            SHARD: bytes(range(256)) * 4_096,
        }
        self.claimed_bytes: int | None = None  # of the shard, as listed
        self.checksum: str | None = None  # of the shard, as listed
        self.breaks = 0  # how many answers with the shard end early
        self.asked: list[tuple[str, str | None]] = []  # files with their ranges, of GETs

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def listing(self) -> dict[str, object]:
        """What the API says of the repository."""
        siblings: list[dict[str, object]] = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "x"}
            if name == SHARD:
                size = self.claimed_bytes or len(data)
                digest = self.checksum or hashlib.sha256(data).hexdigest()
                entry |= {"size": size, "lfs": {"sha256": digest, "size": size, "pointerSize": 1}}
            siblings.append(entry)
        return {"id": REPO, "sha": COMMIT, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            body = json.dumps(self.server.listing()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self._file(body=True)

    def _file(self, *, body: bool) -> None:
        name = self.path.rpartition("/")[2].partition("?")[0]
        data = self.server.files[name]
        ranged = self.headers.get("Range")
        start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
        if body:
            self.server.asked.append((name, ranged))
        self.send_response(206 if ranged else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        rest = data[start:]
        if name == SHARD and self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        self.wfile.write(rest)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(phases: list[str]) -> str:
    """All phases as one text."""
    return " ".join(phases)


def test_a_checkpoint_is_fetched_whole_and_only_once(hub: Hub, tmp_path: Path) -> None:
    phases: list[str] = []
    folder = fetch(SOURCE, tmp_path, phases.append, endpoint=hub.url)
    assert {name: (folder / name).read_bytes() for name in hub.files} == hub.files
    assert "fetching weights 1/3" in said(phases)
    hub.asked.clear()
    assert fetch(SOURCE, tmp_path, phases.append, endpoint=hub.url) == folder
    assert hub.asked == []


def test_a_gateway_fetches_no_weights(hub: Hub, tmp_path: Path) -> None:
    folder = fetch(SOURCE, tmp_path, lambda _: None, weights=False, endpoint=hub.url)
    assert (folder / "tokenizer.json").exists()
    assert not (folder / SHARD).exists()
    fetch(SOURCE, tmp_path, lambda _: None, endpoint=hub.url)
    assert (folder / SHARD).exists()


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.files[SHARD] *= 24  # the library writes pieces of 10 MiB
    hub.breaks = 1
    folder = fetch(SOURCE, tmp_path, lambda _: None, endpoint=hub.url)
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    ranges = [ranged for name, ranged in hub.asked if name == SHARD]
    assert len(ranges) == 2
    assert ranges[1] is not None
    assert not ranges[1].startswith("bytes=0-"), "not from the beginning"


def test_a_disk_without_room_is_found_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    hub.claimed_bytes = 10**18
    with pytest.raises(EngineStartError, match=r"needs 1000000000\.0 GB more") as caught:
        fetch(SOURCE, tmp_path, lambda _: None, endpoint=hub.url)
    assert "weights_cache" in caught.value.cure
    assert hub.asked == []


def test_a_wrong_checksum_is_refused_and_the_file_removed(hub: Hub, tmp_path: Path) -> None:
    hub.checksum = "f" * 64
    with pytest.raises(EngineStartError, match="another checksum"):
        fetch(SOURCE, tmp_path, lambda _: None, endpoint=hub.url)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_hub_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="the hub does not list deepseek-ai/Tiny") as caught:
        fetch(SOURCE, tmp_path, lambda _: None, endpoint="http://127.0.0.1:9")
    assert caught.value.cure
