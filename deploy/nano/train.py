"""Trains r1-nano: `python -m deploy.nano.train OUT.safetensors.xz`, on CPU, in two stages.

The first has numbers up to 999, so that it learns what digits are; the second those that it is
judged on. Deterministic for one machine and version of torch; others round differently. About an
hour on one core with AMX: 49 and 12 minutes.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from deploy.nano.corpus import Corpus, Sample
from deploy.nano.model import IGNORED, Nano, loss
from deploy.nano.pack import pack, unpack
from deploy.nano.task import SMALL, WIDE, Numbers
from orchestrator.engines.nano_checkpoint import NANO_SHAPE
from orchestrator.engines.tiny_checkpoint import published_tokenizer

BATCH = 32
POOL = 32  # batches drawn together, so that those of one length share one
AHEAD_SHARE = 0.3  # of the loss; DeepSeek-V3 technical report, section 4.2
BALANCE_STEP = 0.001  # the same
RATE_END = 2e-5
LENGTH_STEP, SIZE_STEP = 16, 512  # padding: few shapes, for which kernels are compiled once


@dataclass(frozen=True, slots=True)
class Stage:
    """What is trained on, for how long, and how fast."""

    numbers: Numbers
    steps: int
    rate: float
    warm_up: int


STAGES = (Stage(WIDE, 3_500, 2e-3, 200), Stage(SMALL, 1_100, 1e-3, 50))


def main() -> None:
    """Trains, and writes the weights after every 500 steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--begin", type=Path, metavar="FILE", help="weights of the first stage")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(published_tokenizer() / "tokenizer.json"))
    torch.manual_seed(0)
    for seed, stage in enumerate(STAGES):
        corpus = Corpus(tokenizer, stage.numbers, seed)
        if seed == 0:
            model = Nano(NANO_SHAPE, len(corpus.known) + 1)
            print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
            if options.begin is not None:
                continue
        else:
            unpack(model, corpus.known, options.begin or options.out)
        _train(model, corpus, stage, options.out)
        pack(model, corpus.known, options.out)


def _train(model: Nano, corpus: Corpus, stage: Stage, out: Path) -> None:
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.95), fused=True)
    began = time.monotonic()
    shown, shown_ahead, tokens = 0.0, 0.0, 0
    for step, (ids, wanted) in zip(range(stage.steps), _batches(corpus), strict=False):
        rate = _rate(step, stage)
        for group in optimizer.param_groups:
            group["lr"] = rate
        next_loss, ahead_loss = _losses(model, ids, wanted)
        optimizer.zero_grad(set_to_none=True)
        (next_loss + AHEAD_SHARE * ahead_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for gate in model.gates():
            gate.balance(BALANCE_STEP)
        shown += next_loss.item()
        shown_ahead += ahead_loss.item()
        tokens += ids.numel()
        if (step + 1) % 100 == 0:
            took = time.monotonic() - began
            print(
                f"step {step + 1}: loss {shown / 100:.4f}, ahead {shown_ahead / 100:.4f}, "
                f"{tokens / took:.0f} tokens/s, {took:.0f} s",
                flush=True,
            )
            shown, shown_ahead = 0.0, 0.0
        if (step + 1) % 500 == 0:
            pack(model, corpus.known, out)


def _rate(step: int, stage: Stage) -> float:
    if step < stage.warm_up:
        return stage.rate * (step + 1) / stage.warm_up
    share = (step - stage.warm_up) / max(1, stage.steps - stage.warm_up)
    return RATE_END + (stage.rate - RATE_END) * 0.5 * (1 + math.cos(math.pi * share))


def _losses(model: Nano, ids: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """`wanted`: the ids one ahead, 0 where nothing is learned."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, ahead = model(ids)
        return _loss(model, out, wanted), _loss(model, ahead, wanted[:, 1:])


def _loss(model: Nano, out: Tensor, wanted: Tensor) -> Tensor:
    """Over the learned places only, padded to a few sizes: kernels are compiled for each."""
    learned = wanted.flatten().nonzero().squeeze(1)
    short = -len(learned) % SIZE_STEP
    wanted = functional.pad(wanted.flatten()[learned], (0, short), value=IGNORED)
    return loss(model.lm_head(out.flatten(0, 1)[functional.pad(learned, (0, short))]), wanted)


def _batches(corpus: Corpus) -> Iterator[tuple[Tensor, Tensor]]:
    rows = {token: row for row, token in enumerate(corpus.known, 1)}
    chance = torch.Generator().manual_seed(0)
    while True:
        samples = sorted((corpus.sample() for _ in range(BATCH * POOL)), key=lambda s: len(s.ids))
        for at in torch.randperm(POOL, generator=chance).tolist():
            yield _batch(samples[at * BATCH : (at + 1) * BATCH], rows)


def _batch(samples: list[Sample], rows: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Rows of ids and what is wanted after each, padded by 0."""
    length = max(len(sample.ids) for sample in samples)
    length += -length % LENGTH_STEP
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    wanted = torch.zeros(len(samples), length, dtype=torch.long)
    for at, sample in enumerate(samples):
        known = torch.tensor([rows.get(token, 0) for token in sample.ids])
        ids[at, : len(known)] = known
        wanted[at, sample.learned_from - 1 : len(known) - 1] = known[sample.learned_from :]
    return ids, wanted


if __name__ == "__main__":
    main()
