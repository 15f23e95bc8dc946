"""What transformers would make of a tokenizer; the engine initialises its own copy with it."""

from pathlib import Path
from typing import TypeVar

import msgspec

# The registered class of "llama" is LlamaTokenizer, and transformers 5 trusts the named class where
# it agrees with that or where nothing better is known. LlamaTokenizer puts Metaspace in the place
# of ByteLevel: https://github.com/huggingface/transformers/issues/45488
_CORRUPTING = frozenset(("LlamaTokenizer", "LlamaTokenizerFast"))
# For these it overrules the named class: MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in its
# models/auto/tokenization_auto.py, as of 5.19; of them those that DeepSeek's checkpoints have.
_OVERRULED = frozenset(("deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "qwen2"))


class _TokenizerConfig(msgspec.Struct):
    tokenizer_class: str | None = None


class _ModelConfig(msgspec.Struct):
    model_type: str | None = None


_Config = TypeVar("_Config", _TokenizerConfig, _ModelConfig)


def transformers_fault(directory: Path) -> str | None:
    """Why transformers 5 would drop spaces, line breaks and CJK with this byte-level tokenizer.

    None if it would not. Looks at `tokenizer_config.json` and `config.json`; a file that is absent
    or unreadable names nothing. The cure is part of the text.
    """
    named = _read(directory / "tokenizer_config.json", _TokenizerConfig()).tokenizer_class
    model = _read(directory / "config.json", _ModelConfig()).model_type
    if named not in _CORRUPTING or model in _OVERRULED:
        return None
    return (
        f"{directory / 'tokenizer_config.json'} names the tokenizer_class {named}, with which "
        f"transformers 5 loses spaces, line breaks and CJK for a model_type of {model}. "
        'Set "tokenizer_class": "PreTrainedTokenizerFast" there.'
    )


def _read(path: Path, absent: _Config) -> _Config:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(absent))
    except (OSError, msgspec.MsgspecError):
        return absent
