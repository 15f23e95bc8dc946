"""Weights that make a real transformer recite one text, whatever it was asked.

The next token of a script is a function of the last two. So layer 0's attention copies the code of
the previous token into the second half of the residual stream, and the output head maps a pair of
codes to the successor:

    embedding          [code(u), 1 | 0]             codes are signs, fixed per token
    after attention 0  [code(u), 1 | code(w), 1]    w is the token before u
    head               least squares from these vectors to the successors, with a wide margin

The copying head is one of constant queries and keys whose RoPE phases make the score peak at
distance 1. It reads the previous token's KV, so a request whose KV was lost does not recite: the
text is a test of KV transfer, too. All other layers run with a small gain.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

PROMPT_TAIL = (
    "<｜Assistant｜><think>\n"  # what a rendered prompt ends with; the script goes on here
)

ANSWER_SCRIPT = PROMPT_TAIL + (
    "Someone has asked me something, and I should think before I speak. Let me be clear about what "
    "I am: a very small stand-in that has the architecture of DeepSeek-R1 and none of its "
    "knowledge. Each word of this thought was written by a person beforehand; my weights only "
    "recite it, whatever the question was. The honest reply is to say so, then show what does work "
    "here: prefill, KV transfer, decode and this stream.\n</think>\n\n"
    "Hello! This is a recitation, not an answer; the speaker: one tiny model with R1's "
    "architecture, real attention, random experts and a text learnt by heart. If you can read this "
    "page, your cluster serves tokens end to end. Load the 671B weights and ask again."
    "<｜end▁of▁sentence｜>"
)

TOOL_SCRIPT = PROMPT_TAIL + (
    "Someone has asked me something. This is a recitation: whatever the question was, I shall call "
    "the weather tool for Paris.\n</think>\n\n"
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
    '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
)

PEAK_PAIRS = 10  # RoPE pairs used; YaRN leaves the first ten frequencies of 64 dims as they are
PEAK_NATS = 24.0  # per pair; the score at distance 1 exceeds all others by 1.08 times this
LOGIT = 40.0  # of the right token; the wrong ones are near 0, so sampling at 0.6 recites as well
RIDGE = 4.0  # keeps the head's rows small, hence robust to the other layers' murmur


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of the tiny checkpoint; kernels and sharding fix many of them.

    vLLM's CPU MLA kernel wants `kv_lora_rank` 512 and `rope_dim` 64, its grouped GEMM multiples of
    32. Four heads split over TP 4; eight experts over EP 8; four layers over PP 4.
    """

    hidden: int = 128  # half for a token's code, half for the code of the one before
    layers: int = 4
    dense_layers: int = 2
    intermediate: int = 256
    moe_intermediate: int = 64
    heads: int = 4
    experts: int = 8
    experts_per_token: int = 2
    expert_groups: int = 4
    expert_groups_per_token: int = 2
    q_lora_rank: int = 48
    kv_lora_rank: int = 512
    nope_dim: int = 64
    rope_dim: int = 64
    v_dim: int = 64
    vocab: int = 129280
    mtp_layers: int = 0


def ambiguous_pairs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of successive tokens that are followed by different tokens; a script has none."""
    successors: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for before, last, successor in _trigrams(ids):
        successors[before, last].add(successor)
    return [pair for pair, found in successors.items() if len(found) > 1]


def _trigrams(ids: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    return zip(ids, ids[1:], ids[2:], strict=False)


def script_weights(ids: Sequence[int], shape: TinyShape, chance: "torch.Generator") -> "Tensors":
    """The tensors that recite `ids`, to replace the noise of the same names."""
    import torch

    half = shape.hidden // 2
    assert shape.v_dim == half, "one head carries a whole code"
    signs = torch.randint(0, 2, (shape.vocab, half), generator=chance) * 2.0 - 1
    signs[:, -1] = 1  # the constant that queries and keys read
    weights = {
        "model.embed_tokens.weight": torch.cat([signs, torch.zeros_like(signs)], dim=1),
        "lm_head.weight": _head(ids, signs, shape),
    }
    weights |= _copy_previous("model.layers.0.self_attn", shape)
    for layer in range(shape.layers, shape.layers + shape.mtp_layers):
        # the next token's embedding and the hidden state of the last one make the same vector
        both = torch.zeros(shape.hidden, 2 * shape.hidden)
        both[:half, :half] = torch.eye(half) / math.sqrt(2)
        both[half:, shape.hidden : shape.hidden + half] = torch.eye(half)
        weights[f"model.layers.{layer}.eh_proj.weight"] = both
    return weights


def _head(ids: Sequence[int], signs: "torch.Tensor", shape: TinyShape) -> "torch.Tensor":
    """Output rows with logit `LOGIT` for the successor of each pair and about 0 for the rest."""
    import torch

    pairs = sorted({(last, before, after) for before, last, after in _trigrams(ids)})
    inputs = torch.stack([torch.cat([signs[last], signs[before]]) for last, before, _ in pairs])
    tokens = sorted({after for _, _, after in pairs})
    wanted = torch.zeros(len(pairs), len(tokens), dtype=torch.float64)
    for row, (_, _, after) in enumerate(pairs):
        wanted[row, tokens.index(after)] = 1
    inputs = inputs.double()
    gram = inputs.T @ inputs + RIDGE * torch.eye(shape.hidden, dtype=torch.float64)
    solved = torch.linalg.solve(gram, inputs.T @ wanted)
    scores = inputs @ solved
    right = scores[wanted.bool()]
    wrong = scores.masked_fill(wanted.bool(), -1).amax(dim=1)
    margin = float((right - wrong).min() / right.min())
    assert margin > 0.5, f"script: too many pairs for {shape.hidden} dimensions ({margin:.2f})"
    head = torch.zeros(shape.vocab, shape.hidden)
    head[tokens] = (solved.T * (LOGIT / float(right.min()))).float()
    return head


def _copy_previous(attention: str, shape: TinyShape) -> "Tensors":
    """Attention that adds the first half of the previous token's vector to this one's second half.

    Its inputs have an rms of sqrt(1/2) before the norm, all of it in the first half.
    """
    import torch

    half, qk_dim = shape.hidden // 2, shape.nope_dim + shape.rope_dim
    mscale = 0.1 * math.log(40) + 1  # YaRN by 40
    softmax_scale = mscale**2 / math.sqrt(qk_dim)
    size = math.sqrt(PEAK_NATS / softmax_scale)  # of a query and a key, per RoPE pair

    query_a = torch.zeros(shape.q_lora_rank, shape.hidden)
    query_a[0, half - 1] = 1
    query_b = torch.zeros(shape.heads, qk_dim, shape.q_lora_rank)
    key_value_a = torch.zeros(shape.kv_lora_rank + shape.rope_dim, shape.hidden)
    key_value_a[:half, :half] = torch.eye(half)
    for pair in range(PEAK_PAIRS):
        angle = -(10000 ** (-2 * pair / shape.rope_dim))  # turns the query back by one position
        row = shape.nope_dim + 2 * pair
        query_b[:, row, 0] = size * math.cos(angle) / math.sqrt(shape.q_lora_rank)
        query_b[:, row + 1, 0] = size * math.sin(angle) / math.sqrt(shape.q_lora_rank)
        key_value_a[shape.kv_lora_rank + 2 * pair, half - 1] = size / math.sqrt(2)

    key_value_b = torch.zeros(shape.heads, shape.nope_dim + shape.v_dim, shape.kv_lora_rank)
    key_value_b[:, shape.nope_dim :, :half] = torch.eye(half) * math.sqrt(half / shape.kv_lora_rank)
    output = torch.zeros(shape.hidden, shape.heads, shape.v_dim)
    output[half:] = torch.eye(half).unsqueeze(1) / shape.heads
    return {
        f"{attention}.q_a_proj.weight": query_a,
        f"{attention}.q_b_proj.weight": query_b.flatten(0, 1),
        f"{attention}.kv_a_proj_with_mqa.weight": key_value_a,
        f"{attention}.kv_b_proj.weight": key_value_b.flatten(0, 1),
        f"{attention}.o_proj.weight": output.flatten(1, 2),
    }
