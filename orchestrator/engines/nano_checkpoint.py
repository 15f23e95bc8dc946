"""The weights of r1-nano, the small model that really thinks, as they are kept and as R1 has them.

Kept are the rows of the vocabulary that it was trained on, and one row for all others. Trained by
`deploy/nano/`.
"""

import lzma
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engines.recitation import TinyShape

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

NANO_WEIGHTS = Path(__file__).parent / "nano.safetensors.xz"
NANO_SHAPE = TinyShape(dense_layers=1, mtp_layers=1)
KNOWN, EMBED, HEAD = "known", "embed", "head"


def nano_tensors(file: Path = NANO_WEIGHTS) -> "Tensors":
    """All weights by their names in R1's checkpoint, bf16 but for the routers' biases.

    An id that is not known has the embedding of all unknown ones, and is never answered: its row
    of the head is zero, far below what the known ones reach.
    """
    import torch
    from safetensors.torch import load

    kept = load(lzma.decompress(file.read_bytes()))
    known = kept.pop(KNOWN).long()
    rows, heads = kept.pop(EMBED), kept.pop(HEAD)
    vocab, hidden = NANO_SHAPE.vocab, NANO_SHAPE.hidden
    embed = rows[0].expand(vocab, hidden).clone()
    embed[known] = rows[1:]
    head = torch.zeros(vocab, hidden, dtype=heads.dtype)
    head[known] = heads[1:]
    return {**kept, "model.embed_tokens.weight": embed, "lm_head.weight": head}
