"""The architecture of DeepSeek-V3 and R1 in plain torch, small, for training on a CPU.

MLA with YaRN, leading dense layers, shared and routed experts behind group-limited sigmoid routing
with a bias that balances their load instead of a loss, and one layer of multi-token prediction:
DeepSeek-V3 technical report, arXiv 2412.19437, section 2. Tensors are named as in R1's checkpoint.
Shapes: `x: [batch, length, hidden]`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from orchestrator.engines.recitation import TinyShape

EPSILON = 1e-6
ROUTED_SCALE = 2.5
YARN_FACTOR, YARN_CONTEXT, ROPE_THETA = 40, 4096, 10_000  # of R1's config.json
BETA_FAST, BETA_SLOW = 32, 1
MSCALE = 0.1 * math.log(YARN_FACTOR) + 1  # with `mscale_all_dim` 1.0
# vLLM sums over the whole vocabulary; the rows that are not trained are zero, and so their logits.
UNTRAINED_LOGIT = math.log(129_280)
IGNORED = -100  # as a wanted row: not learned


class Norm(nn.Module):  # type: ignore[misc]  # untyped
    """RMSNorm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPSILON)


def rotations(length: int, rope_dim: int) -> Tensor:
    """The turn of each position and pair of dimensions, as complex numbers `[length, dim / 2]`."""
    half = torch.arange(0, rope_dim, 2, dtype=torch.float64) / rope_dim
    fast = ROPE_THETA**-half
    low, high = (
        rope_dim * math.log(YARN_CONTEXT / (turns * 2 * math.pi)) / (2 * math.log(ROPE_THETA))
        for turns in (BETA_FAST, BETA_SLOW)
    )
    low, high = max(math.floor(low), 0), min(math.ceil(high), rope_dim - 1)
    ramp = ((torch.arange(rope_dim // 2) - low) / (high - low)).clamp(0, 1)
    frequencies = fast / YARN_FACTOR * ramp + fast * (1 - ramp)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """`x: [..., length, rope_dim]` with neighbouring dimensions turned as pairs."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


class Attention(nn.Module):  # type: ignore[misc]  # untyped
    """Multi-head latent attention in its plain form, causal."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        heads, hidden = shape.heads, shape.hidden
        self.q_a_proj = nn.Linear(hidden, shape.q_lora_rank, bias=False)
        self.q_a_layernorm = Norm(shape.q_lora_rank)
        width = heads * (shape.nope_dim + shape.rope_dim)
        self.q_b_proj = nn.Linear(shape.q_lora_rank, width, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, shape.kv_lora_rank + shape.rope_dim, bias=False)
        self.kv_a_layernorm = Norm(shape.kv_lora_rank)
        width = heads * (shape.nope_dim + shape.v_dim)
        self.kv_b_proj = nn.Linear(shape.kv_lora_rank, width, bias=False)
        self.o_proj = nn.Linear(heads * shape.v_dim, hidden, bias=False)

    @override
    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        shape = self.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.unflatten(-1, (shape.heads, -1)).transpose(1, 2)
        q_nope, q_rope = q.split([shape.nope_dim, shape.rope_dim], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split(
            [shape.kv_lora_rank, shape.rope_dim], dim=-1
        )
        kv = self.kv_b_proj(self.kv_a_layernorm(latent))
        kv = kv.unflatten(-1, (shape.heads, -1)).transpose(1, 2)
        k_nope, v = kv.split([shape.nope_dim, shape.v_dim], dim=-1)
        q = torch.cat([q_nope, turned(q_rope, turns)], dim=-1)
        k_rope = turned(k_rope, turns).unsqueeze(1).expand(-1, shape.heads, -1, -1)
        k = torch.cat([k_nope, k_rope], dim=-1)
        scale = MSCALE * MSCALE / math.sqrt(shape.nope_dim + shape.rope_dim)
        drawn = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        out: Tensor = self.o_proj(drawn.transpose(1, 2).flatten(-2))
        return out


class Mlp(nn.Module):  # type: ignore[misc]  # untyped
    """SwiGLU."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Gate(nn.Module):  # type: ignore[misc]  # untyped
    """Which experts take a token, and with what weight."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.experts, shape.hidden))
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.experts))
        self.load = torch.zeros(shape.experts)  # tokens since the bias was moved last

    @override
    def forward(self, x: Tensor) -> Tensor:
        """`[..., experts]`: zero but for those chosen, which sum to `ROUTED_SCALE`."""
        shape = self.shape
        scores = torch.sigmoid(functional.linear(x.float(), self.weight.float()))
        bias = self.get_buffer("e_score_correction_bias")
        with torch.no_grad():
            biased = (scores + bias).unflatten(-1, (shape.expert_groups, -1))
            groups = biased.topk(2, dim=-1).values.sum(-1)
            best = groups.topk(shape.expert_groups_per_token, dim=-1).indices
            mask = torch.zeros_like(groups).scatter(-1, best, 1).unsqueeze(-1)
            allowed = biased.masked_fill(mask == 0, -math.inf).flatten(-2)
            chosen = allowed.topk(shape.experts_per_token, dim=-1).indices
            picked = torch.zeros_like(scores).scatter(-1, chosen, 1)
            self.load += picked.flatten(0, -2).sum(0)
        weights = scores * picked
        return weights / weights.sum(-1, keepdim=True) * ROUTED_SCALE

    def balance(self, step: float) -> None:
        """Moves the bias by `step` against the load since the last time."""
        bias = self.get_buffer("e_score_correction_bias")
        bias += step * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


class Experts(nn.Module):  # type: ignore[misc]  # untyped
    """All experts as one wide layer: a token's share in most of them is zero."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        wide = shape.experts * shape.moe_intermediate
        self.shape = shape
        self.gate = Gate(shape)
        self.gate_proj = nn.Parameter(torch.empty(wide, shape.hidden))
        self.up_proj = nn.Parameter(torch.empty(wide, shape.hidden))
        self.down_proj = nn.Parameter(torch.empty(wide, shape.hidden))  # each expert's transposed
        self.shared_experts = Mlp(shape.hidden, shape.moe_intermediate)

    @override
    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x).to(x.dtype).repeat_interleave(self.shape.moe_intermediate, dim=-1)
        gate = functional.silu(functional.linear(x, self.gate_proj))
        inner = gate * functional.linear(x, self.up_proj) * share
        shared: Tensor = self.shared_experts(x)
        return functional.linear(inner, self.down_proj.t()) + shared


class Layer(nn.Module):  # type: ignore[misc]  # untyped
    """One decoder layer."""

    def __init__(self, shape: TinyShape, *, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden)
        self.mlp = Mlp(shape.hidden, shape.intermediate) if dense else Experts(shape)

    @override
    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Ahead(nn.Module):  # type: ignore[misc]  # untyped
    """The layer that guesses the token after the next, from the next one."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.enorm = Norm(shape.hidden)
        self.hnorm = Norm(shape.hidden)
        self.eh_proj = nn.Linear(2 * shape.hidden, shape.hidden, bias=False)
        self.layer = Layer(shape, dense=False)
        self.norm = Norm(shape.hidden)

    @override
    def forward(self, x: Tensor, following: Tensor, turns: Tensor) -> Tensor:
        """`x`: the model's normed output; `following`: the next token's embedding."""
        both = self.eh_proj(torch.cat([self.enorm(following), self.hnorm(x)], dim=-1))
        out: Tensor = self.norm(self.layer(both, turns))
        return out


class Nano(nn.Module):  # type: ignore[misc]  # untyped
    """The whole model over a vocabulary of `tokens` rows; row 0 is for all unknown ones."""

    def __init__(self, shape: TinyShape, tokens: int) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(tokens, shape.hidden)
        self.layers = nn.ModuleList(
            Layer(shape, dense=layer < shape.dense_layers) for layer in range(shape.layers)
        )
        self.norm = Norm(shape.hidden)
        self.ahead = Ahead(shape)
        self.lm_head = nn.Linear(shape.hidden, tokens, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                width = shape.hidden if "mlp.down_proj" not in name else weight.shape[-1]
                nn.init.normal_(weight, std=0.5 / math.sqrt(width))

    @override
    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`ids: [batch, length]` -> the normed output for the next token, and `Ahead`'s for the one
        after: `[batch, length, hidden]` and one less.
        """
        turns = rotations(ids.shape[1], self.shape.rope_dim)
        x = self.embed_tokens(ids)
        following = x[:, 1:]
        for layer in self.layers:
            x = layer(x, turns)
        x = self.norm(x)
        return x, self.ahead(x[:, :-1], following, turns[:-1])

    def gates(self) -> Iterator[Gate]:
        """Every router."""
        for module in self.modules():
            if isinstance(module, Gate):
                yield module


def loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross entropy: `logits: [count, tokens]`, `wanted: [count]`. Row 0 is never wanted; its
    place stands for the untrained rest of the vocabulary.
    """
    rest = torch.full_like(logits[:, :1], UNTRAINED_LOGIT)
    return functional.cross_entropy(
        torch.cat([rest, logits[:, 1:]], dim=-1).float(), wanted, ignore_index=IGNORED
    )
