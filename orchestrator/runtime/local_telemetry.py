"""Telemetry of `r1-serve up`: one telemetry process for all simulated nodes and, where it is
installed, Prometheus with our rules behind the boards.
"""

import shutil
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from orchestrator.runtime.ports import PortClaims
from orchestrator.spec import LOOPBACK, Spec
from orchestrator.telemetry.rule_files import rule_files
from orchestrator.telemetry.scrape_config import prometheus_config
from orchestrator.telemetry.targets import FOLDER

_END_S = 5.0
_RAY_TARGETS = "prom_metrics_service_discovery.json"  # that Ray writes into its temp_dir
_NO_PROMETHEUS = "not shown: Prometheus is not installed (Debian: apt-get install prometheus)"


class LocalTelemetry:
    """Its processes; the fleet runs without them too, so none of their troubles ends it."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        """`folder` is Ray's, and for what Prometheus keeps."""
        self._spec = spec
        self._folder = folder
        self._ports = PortClaims(LOOPBACK)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self.boards = _NO_PROMETHEUS

    def start(self) -> None:
        """Starts them; they come up while the gangs do."""
        port = self._port()
        self.url = f"http://{LOOPBACK}:{port}"
        command = [sys.executable, "-m", "orchestrator.cli", "telemetry", "--host", LOOPBACK]
        command += ["--port", str(port), "--targets", str(Path(self._spec.log_dir, FOLDER))]
        command += self._gpus()
        for certificate in self._spec.telemetry.certificates:
            command += ["--certificate", certificate]
        prometheus = shutil.which("prometheus")
        if prometheus is not None:
            at = f"{LOOPBACK}:{self._ports.take(1)[0]}"
            self._start("prometheus", [prometheus, *self._prometheus(at, f"{LOOPBACK}:{port}")])
            command += ["--prometheus", at]
            self.boards = f"{self.url}/"
        self._start("telemetry", command)

    def stop(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._ports.release()

    def _gpus(self) -> list[str]:
        """A recording where nothing can be read, under a name that is no host's."""
        if shutil.which("nvidia-smi") is not None:
            return ["--gpus", "nvml"]
        recording = files("orchestrator.telemetry").joinpath("gpus-made.jsonl")
        return ["--gpus", f"recorded:{recording}", "--node", "recorded"]

    def _prometheus(self, at: str, telemetry: str) -> list[str]:
        """Its arguments; its configuration and rules are written first."""
        folder = self._folder / "prometheus"
        folder.mkdir()
        paths = []
        for name, text in rule_files().items():
            path = folder / name
            path.write_text(text, encoding="utf-8")
            paths.append(path)
        config = folder / "prometheus.yml"
        text = prometheus_config(telemetry, self._folder / _RAY_TARGETS, paths)
        config.write_text(text, encoding="utf-8")
        return [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={at}",
            "--log.level=warn",
        ]

    def _port(self) -> int:
        """The spec's, or another if somebody has it: this is only a laptop's fleet."""
        port = self._spec.telemetry.port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return self._ports.take(1)[0]
        return port

    def _start(self, name: str, command: list[str]) -> None:
        log = Path(self._spec.log_dir, f"{name}.log")
        with log.open("ab") as file:
            self._processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
                )
            )
