"""Downloads a checkpoint from a model hub into a node's cache: once, whole, and checked."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError  # what the hub's library raises, and its own errors derive from
from huggingface_hub import HfApi, hf_hub_download

from orchestrator.core import EngineStartError
from orchestrator.engines.weights import local_path
from orchestrator.spec import Source, SourceKind

DONE = ".r1-serve-complete"  # the revision, once every file is there and right
WEIGHTS = (".safetensors",)
READ_BYTES = 4 << 20
ATTEMPTS = 5  # of one file: each goes on where the last broke off
_CURE = "check the network and HF_TOKEN, or name a folder that holds the checkpoint"


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size_bytes: int
    sha256: str | None  # of large files; small ones have none


def fetch(
    source: Source,
    cache: Path,
    on_phase: Callable[[str], None],
    *,
    weights: bool = True,
    endpoint: str | None = None,
) -> Path:
    """The folder of the checkpoint in the cache, downloaded if it is not there; blocks.

    Of several processes on a node one downloads and the others wait. What was there of a download
    that broke off is used. Raises EngineStartError before the first byte if the disk has no room,
    and after the last if a checksum is wrong; the broken file is then removed. `weights` False
    leaves the shards out: the gateway needs the tokenizer only.
    """
    assert source.kind is SourceKind.HUB
    folder = Path(local_path(source, str(cache)))
    done = folder / (DONE if weights else f"{DONE}-tokenizer")
    if done.exists():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, on_phase):
            if not done.exists():
                files = _files(source, weights, endpoint)
                _check_room(folder, files)
                for at, file in enumerate(files):
                    on_phase(f"fetching weights {at}/{len(files)}")
                    _fetch_file(source, folder, file, endpoint)
                done.write_text(source.revision)
    except OSError as error:
        raise EngineStartError(f"cannot write to {folder}: {error}", "set weights_cache") from error
    return folder


@contextmanager
def _alone(folder: Path, on_phase: Callable[[str], None]) -> Iterator[None]:
    """While this process is the only one that downloads there; the lock ends with it."""
    with (folder / ".r1-serve-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_phase("waiting for another process to fetch the weights")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _files(source: Source, weights: bool, endpoint: str | None) -> list[_File]:
    try:
        info = HfApi(endpoint=endpoint).model_info(
            source.where, revision=source.revision, files_metadata=True
        )
    except (HTTPError, OSError, ValueError) as error:
        raise EngineStartError(f"the hub does not list {source.where}: {error}", _CURE) from error
    files = [
        _File(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs is not None else None)
        for one in info.siblings or ()
        if weights or not one.rfilename.endswith(WEIGHTS)
    ]
    return sorted(files, key=lambda file: file.name)


def _check_room(folder: Path, files: list[_File]) -> None:
    needed = sum(f.size_bytes for f in files if not (folder / f.name).is_file())
    needed -= sum(path.stat().st_size for path in folder.rglob("*.incomplete"))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EngineStartError(
            f"{folder} needs {needed / 1e9:.1f} GB more and its disk has {free / 1e9:.1f} GB",
            "set weights_cache to a larger disk, or remove other checkpoints from it",
        )


def _fetch_file(source: Source, folder: Path, file: _File, endpoint: str | None) -> None:
    path = folder / file.name
    for attempt in range(1, ATTEMPTS + 1):
        try:
            hf_hub_download(
                source.where,
                file.name,
                revision=source.revision,
                local_dir=folder,
                endpoint=endpoint,
            )
            break
        except (HTTPError, OSError, ValueError) as error:
            if attempt == ATTEMPTS:
                cause = f"{file.name} of {source.where} could not be fetched: {error}"
                raise EngineStartError(cause, _CURE) from error
    if file.sha256 is not None and _sha256(path) != file.sha256:
        path.unlink()
        raise EngineStartError(
            f"{path} had another checksum than the hub says", "start again: it is fetched anew"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
