"""`r1-serve telemetry`: what one host has to say, at one port; beside it the boards."""

import argparse
import asyncio
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import PortInUseError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.telemetry.gpu import GpuReader, HostReading


def add_telemetry(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Gives the metrics of this host's GPUs, gateways and engines together on one port. One "
        "process for each host; `r1-serve up` has its own."
    )
    parser.add_argument("--host", default="0.0.0.0", help="to listen on (default 0.0.0.0)")
    parser.add_argument("--port", type=int, default=9402, help="to listen on (default 9402)")
    parser.add_argument("--node", default=platform.node(), help="this host's name in the metrics")
    parser.add_argument(
        "--targets",
        type=Path,
        default=Path("logs/targets"),
        metavar="DIR",
        help="where processes announce their metrics: `targets` in the spec's log_dir",
    )
    parser.add_argument(
        "--gpus",
        default="nvml",
        metavar="WHO",
        help="who reads them: nvml (default), none, or recorded:FILE, which is labelled as such",
    )
    parser.add_argument("--certificate", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument(
        "--prometheus", metavar="HOST:PORT", help="of which the boards are asked; none without"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="also record the GPUs there")
    parser.set_defaults(run=_telemetry)


def _telemetry(options: argparse.Namespace) -> int:
    import uvloop

    from orchestrator.cli.status_page import StatusPage
    from orchestrator.runtime.telemetry_server import TelemetryServer, Watched

    reader = _reader(options.gpus)
    page = None if options.prometheus is None else StatusPage(options.prometheus)
    watched = Watched(options.node, options.targets, reader, options.certificate)
    if options.record is not None:
        watched.on_reading = _recorder(options.record, options.node)
    print(f"GPUs are read by: {reader.source}{_why(reader)}", flush=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(TelemetryServer(watched, page).run(options.host, options.port))
    except OSError as error:
        raise PortInUseError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            "stop what owns the port, or choose another with --port",
        ) from error
    return 0


def _reader(who: str) -> "GpuReader":
    from orchestrator.telemetry.gpu import NoGpus
    from orchestrator.telemetry.nvml import NvmlReader
    from orchestrator.telemetry.recorded import RecordedReader

    if who == "none":
        return NoGpus("nobody is to read them")
    if who.startswith("recorded:"):
        return RecordedReader(Path(who.removeprefix("recorded:")))
    if who != "nvml":
        raise SpecError(f"--gpus {who}", "give nvml, none or recorded:FILE")
    try:
        import pynvml
    except ImportError:
        return NoGpus("nvidia-ml-py is not installed")
    return NvmlReader(pynvml)


def _why(reader: "GpuReader") -> str:
    return f", for {reader.cause}" if reader.cause else ""


def _recorder(path: Path, node: str) -> "Callable[[HostReading], None]":
    """Appends each second to the file, which `recorded:FILE` plays."""
    from orchestrator.telemetry.recorded import head_line, line_of

    try:
        path.write_bytes(head_line(f"the GPUs of {node}"))
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}", "name another file") from error

    def keep(seen: "HostReading") -> None:
        with path.open("ab") as file:
            file.write(line_of(seen))

    return keep
