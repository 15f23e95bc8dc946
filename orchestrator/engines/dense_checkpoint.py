"""Tiny stand-ins for R1's distills: dense models of Qwen2's and Llama's architectures.

Seeded noise behind R1's own tokenizer, whose templates the distills share; their vocabularies are
others, which only the sizes of embedding and head follow from.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

HIDDEN, LAYERS, INTERMEDIATE = 128, 3, 256
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 32
VOCABULARY = 129280  # of R1's tokenizer


class DenseKind(StrEnum):
    """The architectures."""

    QWEN2 = "qwen2"
    LLAMA = "llama"


# What tells them apart, from the config.json of DeepSeek-R1-Distill-Qwen-7B and -Llama-8B.
_OF_KIND: Mapping[DenseKind, Mapping[str, object]] = {
    DenseKind.QWEN2: {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "max_window_layers": LAYERS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000,
        "sliding_window": 4096,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    DenseKind.LLAMA: {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "head_dim": HEAD_DIM,
        "mlp_bias": False,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
    },
}


def dense_config(kind: DenseKind) -> dict[str, object]:
    """`config.json`."""
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 131072,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCABULARY,
        **_OF_KIND[kind],
    }


def dense_tensors(kind: DenseKind, seed: int) -> "Tensors":
    """All weights by their names, in bf16; the same for the same seed."""
    import torch

    chance = torch.Generator().manual_seed(seed)

    def noise(*shape: int, std: float | None = None) -> "torch.Tensor":
        return torch.randn(*shape, generator=chance) * (std or 1 / math.sqrt(shape[-1]))

    weights = {
        "model.embed_tokens.weight": noise(VOCABULARY, HIDDEN, std=1.0),
        "lm_head.weight": noise(VOCABULARY, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN),
    }
    widths = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, width in widths.items():
            weights[f"{prefix}.self_attn.{name}_proj.weight"] = noise(width, HIDDEN)
            if kind is DenseKind.QWEN2:
                weights[f"{prefix}.self_attn.{name}_proj.bias"] = noise(width, std=0.1)
        weights |= {
            f"{prefix}.self_attn.o_proj.weight": noise(HIDDEN, HEADS * HEAD_DIM),
            f"{prefix}.mlp.gate_proj.weight": noise(INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": noise(INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": noise(HIDDEN, INTERMEDIATE),
            f"{prefix}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{prefix}.post_attention_layernorm.weight": torch.ones(HIDDEN),
        }
    return {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
