"""One port for all that a host has to say, and the boards' pages beside it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from orchestrator.cli.status_page import StatusPage
from orchestrator.gateway.metrics_endpoint import announced_metrics
from orchestrator.runtime.http_get import BadAnswer, get
from orchestrator.runtime.ports import PortClaims
from orchestrator.runtime.telemetry_server import FORGET_S, TelemetryServer, Watched
from orchestrator.telemetry import Log, Metrics, metrics, open_log
from orchestrator.telemetry.boards import BOARDS
from orchestrator.telemetry.gpu import GpuReading, HostReading, NoGpus
from orchestrator.telemetry.metrics.labels import Source
from orchestrator.telemetry.targets import Target, announce, announced


class Gpus:
    """A host with one GPU."""

    source = Source.NVML
    cause = ""

    def read(self) -> HostReading:
        return HostReading((GpuReading(0, power_w=5.0),))


@asynccontextmanager
async def serving(watched: Watched, page: StatusPage | None = None) -> AsyncIterator[str]:
    ports = PortClaims("127.0.0.1")
    (port,) = ports.take(1)
    server = TelemetryServer(watched, page)
    task = asyncio.ensure_future(server.run("127.0.0.1", port))
    try:
        address = f"127.0.0.1:{port}"
        while True:
            try:
                if b"r1_gpu_telemetry" in await get(address, "/metrics"):
                    break
            except OSError:
                pass
            await asyncio.sleep(0.01)
        yield address
    finally:
        task.cancel()
        await asyncio.wait([task])
        ports.release()


async def test_gateways_and_gpus_of_a_host_are_one_text(tmp_path: Path) -> None:
    counted = Metrics()
    counted.count(metrics.REQUESTS, 1, "R1", "", "stop")
    announce(tmp_path, Target("gone/0", "127.0.0.1:1", "R1", "decode", "gone", "0", (0,)))
    async with (
        announced_metrics(counted, "gateway-1", tmp_path, Log("test")),
        serving(Watched("host", tmp_path, Gpus())) as address,
    ):
        text = (await get(address, "/metrics")).decode()
    assert 'r1_requests_total{process="gateway-1",model="R1",class="",outcome="stop"} 1.0' in text
    assert 'r1_gpu_power_watts{node="host",gpu="0",source="nvml"} 5.0' in text
    assert 'r1_target_up{process="gateway-1"} 1.0' in text
    assert 'r1_target_up{process="gone/0"} 0.0' in text
    assert 'r1_gpu_rank{node="host",gpu="0",model="R1",role="decode",gang="gone",rank="0"}' in text
    assert list(announced(tmp_path)) == [tmp_path / "gone-0.json"]


async def test_a_gateway_serves_although_its_metrics_cannot_be_announced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(open_log("test", tmp_path / "log")) as log:
        async with announced_metrics(Metrics(), "gateway-1", tmp_path / "file", log):
            pass
    assert "metrics_not_announced" in (tmp_path / "log").read_text()


async def test_a_host_whose_gpus_nobody_reads_says_so_and_gives_all_the_rest(
    tmp_path: Path,
) -> None:
    async with serving(Watched("host", tmp_path, NoGpus("none"))) as address:
        text = (await get(address, "/metrics")).decode()
        assert await get(address, "/health") == b"ok\n"
        with pytest.raises(BadAnswer, match="404"):
            await get(address, "/")
    assert 'r1_gpu_telemetry{node="host",source="none"} 1.0' in text
    assert "r1_gpu_power_watts" not in text


def test_a_process_that_is_silent_for_long_is_forgotten(tmp_path: Path) -> None:
    path = announce(tmp_path, Target("gone/0", "127.0.0.1:1"))
    server = TelemetryServer(Watched("host", tmp_path, NoGpus("none")), None)
    server._silent(path, "gone/0", 100.0)
    server._silent(path, "gone/0", 100.0 + FORGET_S - 1)
    assert path.exists()
    server._silent(path, "gone/0", 100.0 + FORGET_S)
    assert not path.exists()
    assert b"gone/0" not in server._metrics.exposition()


class Prometheus:
    """Stands for one: has a series for queries with a word in them, and an alert that fires."""

    def __init__(self, word: str) -> None:
        self._word = word

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        result: list[object] = []
        if self._word in target:
            labels = {"model": "<R1>", "class": "gold"}
            result = [
                {"metric": labels, "values": [[1_000, "0.25"], [1_015, "NaN"], [1_030, "0.5"]]}
            ]
        alert = {
            "labels": {"alertname": "R1GpuXid"},
            "annotations": {"summary": "It has.", "runbook": "docs/runbooks/R1GpuXid.md"},
            "state": "firing",
        }
        body = json.dumps({"status": "success", "data": {"result": result, "alerts": [alert]}})
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
        writer.close()


async def test_a_page_has_each_panel_with_its_data_or_with_why_there_is_none() -> None:
    server = await asyncio.start_server(Prometheus("r1%3Attft_p99").serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        page = StatusPage(f"{host}:{port}")
        status, kind, body = await page.answer("/r1-service?minutes=5")
        text = body.decode()
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert text.count("data-panel='data'") == 1
    assert text.count("data-panel='absent'") == len(BOARDS[0].panels) - 1
    assert "&lt;R1&gt; gold p99: 500 ms" in text
    assert "No data. The spec has no SLO" in text
    assert "docs/runbooks/R1GpuXid.md" in text
    assert "<script" not in text


async def test_a_page_that_there_is_not_and_a_prometheus_that_is_away_are_said() -> None:
    page = StatusPage("127.0.0.1:1")
    assert (await page.answer("/nowhere"))[0] == 404
    status, _, body = await page.answer("/?minutes=many")
    assert status == 503
    assert b"does not answer" in body
