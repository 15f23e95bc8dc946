"""Trace files as streams of requests: plain or gzip, one line at a time."""

import gzip
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.core import SpecError
from orchestrator.workload.servegen import is_servegen, servegen_requests
from orchestrator.workload.trace import trace_requests
from orchestrator.workload.workload import TraceRequest

_CURE = "give a trace, plain or gzip: Mooncake's JSON lines, CSV, or an archive of ServeGen's files"


def open_trace(path: Path, draw: Callable[[str], random.Random]) -> Iterator[TraceRequest]:
    """The requests of a file in the order of its lines; of ServeGen's archive, drawn. Raises
    SpecError when a line that cannot be read is reached.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
        packed = start[:2] == b"\x1f\x8b"
        if not packed and start[257:262] != b"ustar":
            return trace_requests(_lines(path, packed=False), path.name)
        head = _head(path) if packed else start
        if head[257:262] == b"ustar":
            return servegen_requests(_archive(path), path.name, draw)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise SpecError(f"cannot read {path}: {_why(error)}", _CURE) from error
    return trace_requests(_lines(path, packed=packed), path.name)


def _head(path: Path) -> bytes:
    with gzip.open(path, "rb") as file:
        return file.read(512)


def _archive(path: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                files[member.name] = content.read().decode("utf-8", "replace")
    if not is_servegen(list(files)):
        raise SpecError(f"{path} is an archive of something else", _CURE)
    return files


def _lines(path: Path, *, packed: bool) -> Iterator[str]:
    try:
        with path.open("rb") as raw, gzip.open(raw, "rb") if packed else raw as file:
            for line in file:
                yield line.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {_why(error)}", _CURE) from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
