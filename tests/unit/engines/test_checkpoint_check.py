"""A checkpoint that is not whole is found by its files' headers."""

import json
import struct
from pathlib import Path

import pytest

from orchestrator.core import EngineStartError
from orchestrator.engines.checkpoint_check import INDEX, check_checkpoint, sizes_fault

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(tensors: dict[str, int]) -> bytes:
    """A safetensors file with bytes of such sizes."""
    at, header = 0, {}
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Two shards with three tensors."""
    config = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / FIRST).write_bytes(shard({"a": 10, "b": 20}))
    (tmp_path / SECOND).write_bytes(shard({"c": 30}))
    index = {"weight_map": {"a": FIRST, "b": FIRST, "c": SECOND}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def test_a_whole_checkpoint_has_the_bytes_of_its_shards(whole: Path) -> None:
    sizes = [(whole / name).stat().st_size for name in (FIRST, SECOND)]
    assert check_checkpoint(whole) == sum(sizes)


def test_a_single_file_needs_no_index(whole: Path) -> None:
    (whole / INDEX).unlink()
    (whole / FIRST).rename(whole / "model.safetensors")
    assert check_checkpoint(whole) > 0


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        (SECOND, None, f"lacks the shard {SECOND}"),
        (SECOND, shard({"c": 30})[:-1], "bytes of"),
        (SECOND, shard({"d": 30}), "lacks the tensor c of the index"),
        (SECOND, b"version https://git-lfs.github.com/spec/v1\n", "no safetensors file"),
        (SECOND, b"", "no safetensors file"),
        (INDEX, b"{}", "has no weight_map"),
        (INDEX, None, "neither"),
        ("config.json", b"{}", "names no architecture"),
        ("config.json", b"[", "is no JSON"),
        ("config.json", None, "cannot read"),
    ],
)
def test_what_is_missing_or_broken_is_named_with_its_cure(
    whole: Path, name: str, content: bytes | None, cause: str
) -> None:
    if content is None:
        (whole / name).unlink()
    else:
        (whole / name).write_bytes(content)
    with pytest.raises(EngineStartError, match=cause) as caught:
        check_checkpoint(whole)
    assert caught.value.cure


def test_a_checkpoint_of_another_model_is_named_by_the_first_size_that_differs(whole: Path) -> None:
    sizes = {"hidden_size": 7_168, "num_hidden_layers": 61}
    (whole / "config.json").write_text(json.dumps(sizes | {"num_hidden_layers": 28}))
    assert sizes_fault(whole, {"hidden_size": 7_168}) is None
    fault = sizes_fault(whole, sizes)
    assert fault is not None
    assert "num_hidden_layers 28, the model has 61" in fault
