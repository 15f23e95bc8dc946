"""Whether a folder holds a whole checkpoint, without reading its weights.

The headers of all shards are read: some milliseconds each, so that a shard that is missing or was
cut short is found before minutes of loading.
"""

import json
import struct
from pathlib import Path

from orchestrator.core import EngineStartError

INDEX = "model.safetensors.index.json"
_HEADER_BYTES_MAX = 100 << 20  # the format's own limit
_AGAIN = "copy the checkpoint again, or remove it and let r1-serve download it"


def check_checkpoint(folder: Path) -> int:
    """The bytes of all shards; raises EngineStartError if something is missing or broken."""
    config = _json(folder / "config.json")
    if not config.get("architectures") or not config.get("model_type"):
        raise EngineStartError(
            f"{folder}/config.json names no architecture",
            "serve the config.json that was published with the checkpoint",
        )
    shards = _shards(folder)
    return sum(_check_shard(folder / name, tensors) for name, tensors in sorted(shards.items()))


def sizes_fault(folder: Path, expected: dict[str, int]) -> str | None:
    """How config.json differs from the model that it is served as, or None; `expected` are some of
    its keys.
    """
    config = _json(folder / "config.json")
    for key, size in expected.items():
        if config.get(key) != size:
            return f"{folder}/config.json has {key} {config.get(key)}, the model has {size}"
    return None


def _shards(folder: Path) -> dict[str, set[str]]:
    """The names of all shards with the tensors that they must have."""
    if not (folder / INDEX).is_file():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise EngineStartError(
                f"{folder} has neither {INDEX} nor model.safetensors",
                "name the folder of a checkpoint in safetensors format",
            )
        return {single.name: set()}
    index = _json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise EngineStartError(f"{folder}/{INDEX} has no weight_map", _AGAIN)
    shards: dict[str, set[str]] = {}
    for tensor, shard in index.items():
        shards.setdefault(str(shard), set()).add(str(tensor))
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise EngineStartError(f"{folder} lacks the shard {missing[0]}{more}", _AGAIN)
    return shards


def _check_shard(path: Path, tensors: set[str]) -> int:
    size = path.stat().st_size
    with path.open("rb") as shard:
        begin = shard.read(8)
        length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
        if not 0 < length <= min(size, _HEADER_BYTES_MAX):
            raise EngineStartError(f"{path} is no safetensors file", _AGAIN)
        try:
            header = json.loads(shard.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineStartError(f"{path} has a broken header", _AGAIN) from error
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise EngineStartError(f"{path} has {size} bytes of {whole}", _AGAIN)
    if lacking := sorted(tensors - set(header)):
        raise EngineStartError(f"{path} lacks the tensor {lacking[0]} of the index", _AGAIN)
    return size


def _json(path: Path) -> dict[str, object]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineStartError(
            f"cannot read {path}: {error.strerror}", "set model.path to the folder of a checkpoint"
        ) from error
    except ValueError as error:
        raise EngineStartError(f"{path} is no JSON", _AGAIN) from error
    if not isinstance(tree, dict):
        raise EngineStartError(f"{path} holds no object", _AGAIN)
    return tree
