"""Who on this host has metrics: a small file for each process, in a folder that all of them know.

So one telemetry process with a fixed port can give what gateways and engines, whose ports are any,
have to say; Prometheus needs to know of nobody else.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

FOLDER = "targets"  # below `log_dir`


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process and where its metrics are; `gpus` are the indices of its rank's."""

    process: str
    address: str  # host:port, HTTP, /metrics
    model: str = ""
    role: str = ""
    gang: str = ""
    rank: str = ""
    gpus: tuple[int, ...] = ()


def announce(folder: Path, target: Target) -> Path:
    """Writes its file, which `Path.unlink` takes back; a reader never sees half of one.

    Raises OSError. A process that comes back with its old name may meet the one before it here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target.process.replace('/', '-')}.json"
    handle, half = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(target))
        os.replace(half, path)
    except OSError:
        Path(half).unlink(missing_ok=True)
        raise
    return path


def announced(folder: Path) -> Mapping[Path, Target]:
    """All that are announced now, in the order of their names; what is no target is left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path] = msgspec.json.decode(path.read_bytes(), type=Target)
        except (OSError, msgspec.DecodeError):
            continue  # taken back meanwhile, or somebody else's
    return found
