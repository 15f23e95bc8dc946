"""Container images as files, made of folders and archives here: no registry and no daemon."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CHUNK_BYTES = 1 << 22


def write_image(
    path: Path,
    name: str,
    layers: Sequence[Path],
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
) -> None:
    """Writes the image of these plain archives, the lowest first, as `docker load` takes it."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
            "Cmd": list(command),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(each)}" for each in layers]},
    }
    text = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [
        {
            "Config": config_name,
            "RepoTags": [name],
            "Layers": [f"layer-{at}.tar" for at in range(len(layers))],
        }
    ]
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        _add(archive, config_name, text)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
        for at, layer in enumerate(layers):
            archive.add(layer, f"layer-{at}.tar")
    partial.rename(path)


def write_layer(path: Path, files: Mapping[str, Path]) -> None:
    """Writes a layer of these files and folders, by their path in the image; all are root's."""

    def ours(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(path, "w") as archive:
        for inside, source in sorted(files.items()):
            archive.add(source, inside.lstrip("/"), filter=ours)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
