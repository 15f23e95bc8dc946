import json
from pathlib import Path

import pytest

from orchestrator.codec import transformers_fault

LLAMA = {"tokenizer_class": "LlamaTokenizerFast"}


def written(path: Path, tokenizer: object, model: object) -> Path:
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (path / "config.json").write_text(json.dumps(model))
    return path


@pytest.mark.parametrize("named", ["LlamaTokenizerFast", "LlamaTokenizer"])
@pytest.mark.parametrize("model", [{"model_type": "llama"}, {"model_type": "qwen3"}, {}])
def test_names_the_fault_and_the_cure(tmp_path: Path, named: str, model: object) -> None:
    fault = transformers_fault(written(tmp_path, {"tokenizer_class": named, "x": 1}, model))
    assert fault is not None
    assert named in fault
    assert "PreTrainedTokenizerFast" in fault


@pytest.mark.parametrize("model_type", ["deepseek_v3", "qwen2"])
def test_transformers_overrules_the_class_for_some_models(tmp_path: Path, model_type: str) -> None:
    assert transformers_fault(written(tmp_path, LLAMA, {"model_type": model_type})) is None


@pytest.mark.parametrize("config", [{"tokenizer_class": "PreTrainedTokenizerFast"}, {}])
def test_other_classes_are_no_fault(tmp_path: Path, config: object) -> None:
    assert transformers_fault(written(tmp_path, config, {"model_type": "llama"})) is None


def test_absent_and_broken_files_name_nothing(tmp_path: Path) -> None:
    assert transformers_fault(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert transformers_fault(tmp_path) is None
    assert transformers_fault(written(tmp_path, {"tokenizer_class": 1}, [])) is None
