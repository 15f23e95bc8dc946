"""Trained weights between the model and the file that the package keeps."""

import lzma
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from deploy.nano.model import Nano
from orchestrator.engines.nano_checkpoint import EMBED, HEAD, KNOWN

_ROWS = {"embed_tokens.weight": EMBED, "lm_head.weight": HEAD}
_EXPERTS = ("gate_proj", "up_proj", "down_proj")
_AHEAD = {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "norm": "shared_head.norm"}


def pack(model: Nano, known: list[int], out: Path) -> None:
    """Replaces the file `out`."""
    tensors: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        tensors |= _kept(name, weight, model)
    kept = {
        name: (weight if name.endswith("bias") else weight.to(torch.bfloat16)).contiguous()
        for name, weight in sorted(tensors.items())
    }
    kept[KNOWN] = torch.tensor(known, dtype=torch.int32)
    partial = out.with_name(f".{out.name}")
    partial.write_bytes(lzma.compress(save(kept), preset=9))
    partial.replace(out)


def unpack(model: Nano, known: list[int], file: Path) -> None:
    """Sets the model's weights to those of a file that knows the same tokens."""
    kept = load(lzma.decompress(file.read_bytes()))
    assert kept.pop(KNOWN).tolist() == known, "it was trained on another vocabulary"
    state: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        parts = [kept[part].float() for part in _kept(name, weight, model)]
        if name.endswith("mlp.down_proj"):
            parts = [part.t() for part in parts]
        state[name] = torch.cat(parts)
    model.load_state_dict(state)


def _kept(name: str, weight: Tensor, model: Nano) -> dict[str, Tensor]:
    """One weight of the model by R1's names; experts are one wide weight there, and many here."""
    if name in _ROWS:
        return {_ROWS[name]: weight}
    if name.startswith("ahead."):
        place, _, rest = name.removeprefix("ahead.").partition(".")
        rest = rest if place == "layer" else f"{_AHEAD[place]}.{rest}"
        name = f"layers.{model.shape.layers}.{rest}"
    prefix, _, part = name.rpartition(".mlp.")
    if part not in _EXPERTS:
        return {f"model.{name}": weight}
    experts = [chunk.t() if part == "down_proj" else chunk for chunk in
               weight.chunk(model.shape.experts)]  # fmt: skip
    return {
        f"model.{prefix}.mlp.experts.{number}.{part}.weight": expert
        for number, expert in enumerate(experts)
    }
