"""Where a checkpoint can be, and how it is read from there."""

import pytest

from orchestrator.core import SpecError
from orchestrator.engines.weights import loader_flags, local_path
from orchestrator.spec import Source, SourceKind, source_of


@pytest.mark.parametrize(
    ("path", "source", "loaded"),
    [
        ("/models/r1", Source(SourceKind.FOLDER, "/models/r1"), "/models/r1"),
        (
            "hf://deepseek-ai/DeepSeek-R1",
            Source(SourceKind.HUB, "deepseek-ai/DeepSeek-R1"),
            "/cache/deepseek-ai--DeepSeek-R1@main",
        ),
        (
            "hf://deepseek-ai/DeepSeek-R1@refs/pr/3",
            Source(SourceKind.HUB, "deepseek-ai/DeepSeek-R1", "refs/pr/3"),
            "/cache/deepseek-ai--DeepSeek-R1@refs--pr--3",
        ),
        ("s3://bucket/r1/", Source(SourceKind.S3, "s3://bucket/r1"), "s3://bucket/r1"),
        ("pvc://w/r1", Source(SourceKind.PVC, "/mnt/weights/w/r1"), "/mnt/weights/w/r1"),
    ],
)
def test_each_kind_of_place_is_understood(path: str, source: Source, loaded: str) -> None:
    assert source_of(path) == source
    assert local_path(source, "/cache") == loaded


@pytest.mark.parametrize("path", ["hf://r1", "ftp://host/r1", "s3://", "pvc://", "pvc://w/../x"])
def test_others_are_refused_with_the_ones_that_there_are(path: str) -> None:
    with pytest.raises(SpecError, match="no place of a checkpoint") as caught:
        source_of(path)
    assert "hf://" in caught.value.cure


def test_the_loader_follows_from_the_place() -> None:
    def flags(path: str, *, expert_parallel: bool = False) -> str:
        return " ".join(loader_flags(source_of(path), expert_parallel=expert_parallel))

    assert flags("/models/r1") == ""
    assert flags("pvc://w/r1") == "--safetensors-load-strategy prefetch"
    assert flags("s3://b/r1") == "--load-format runai_streamer"
    assert flags("hf://d/r1", expert_parallel=True) == "--enable-ep-weight-filter"
